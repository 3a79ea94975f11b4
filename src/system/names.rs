//! Names as the programs of another network namespace look them up: by their own /etc/resolv.conf
//! and /etc/hosts.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// What the resolver of libc reads.
const FILES: [&str; 4] = ["resolv.conf", "hosts", "host.conf", "gai.conf"];

/// A list of hosts with some 20,000 names.
const LONGEST: u64 = 1024 * 1024;

/// By the files alone: other services, such as systemd-resolved, would answer for the machine.
const SWITCH: &str = "hosts: files dns\n";

/// Who would answer before these are read.
const CACHE: &str = "/run/nscd/socket";

/// Lets the calling thread, and those that it starts, look names up by the files in `folder` below
/// `root`, which may be a container's: its links lead nowhere outside it. They lie in the place of
/// /etc, so that the thread is good for nothing else.
///
/// # Errors
/// Without the right to mount.
pub(super) fn borrow(root: &Path, folder: &Path) -> io::Result<()> {
    let root = File::open(root)?;
    let text = |name: &'static str| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = folder.join(name);
        let opened = openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        let opened = File::from(opened);
        let is_file = opened.metadata().is_ok_and(|it| it.is_file());
        let mut text = Vec::new();
        let read = opened.take(LONGEST).read_to_end(&mut text);
        (is_file && read.is_ok()).then_some((name, text))
    };
    let texts: Vec<_> = FILES.into_iter().filter_map(text).collect();
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&CStr>;
    // What is mounted below stays with this thread.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    mount(
        none,
        "/etc",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=8m"),
    )?;
    fs::write("/etc/nsswitch.conf", SWITCH)?;
    for (name, text) in texts {
        fs::write(Path::new("/etc").join(name), text)?;
    }
    if Path::new(CACHE).exists() {
        mount(Some("/dev/null"), CACHE, none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}
