//! Takes a recording of a machine: the files that are read of /proc, and the answers beside them.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process;
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tar::{Builder, Header};

use super::answers::{self, Answers, KeptFlow, Taken, VERSION};
use super::scrub::Scrubber;
use super::{ANSWERS, FILES, SCRUBBED, SOCKETS};
use crate::model::{
    Flow, Gap, Holders, Namespace, OtherNamespaces, Owners, Path as Way, Snapshot, SourceName,
    Weight,
};
use crate::refusal::Refusal;
use crate::system::Machine;
use crate::system::byte_order::ByteOrder;
use crate::words::counted;

/// More than the table of a million sockets takes.
const LONGEST: u64 = 256 * 1024 * 1024;

/// What was found out about a machine, to be kept.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Its last look.
    pub snapshot: &'a Snapshot,
    /// Who holds ports besides.
    pub holders: Holders,
    /// The flows whose owners were looked for.
    pub flows: &'a [Flow],
    /// Who was found.
    pub owners: Owners,
    /// Ways to addresses.
    pub routes: Vec<(SocketAddr, Way)>,
    /// Other network namespaces.
    pub others: Option<OtherNamespaces>,
}

/// A recorded machine, in memory.
#[derive(Debug)]
pub struct Recording {
    files: Vec<(&'static str, Vec<u8>)>,
    taken: Option<Taken>,
    is_scrubbed: bool,
    /// What could not be kept.
    pub gaps: Vec<Gap>,
}

/// Takes the files of `machine`, whose sockets were kept on tape while `subject` was found out.
#[must_use]
pub fn take(machine: &Machine, subject: Subject<'_>) -> Recording {
    let mut gaps = Vec::new();
    let mut files = Vec::new();
    for name in FILES {
        let path = machine.recorded_file(name);
        match read(machine, &path) {
            Ok(bytes) => files.push((name, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => gaps.push(Gap {
                what: path.display().to_string(),
                why: format!("{error}; it is left out"),
                weight: Weight::Minor,
            }),
        }
    }
    if files.iter().all(|(name, _)| *name != ARCH)
        && let Ok(machine) = uname()
    {
        let name = machine.machine().to_string_lossy();
        // Of these there are machines of either order.
        let order = match (name.starts_with("mips"), ByteOrder::OWN) {
            (true, ByteOrder::Big) => "eb",
            (true, ByteOrder::Little) => "el",
            (false, _) => "",
        };
        files.push((ARCH, format!("{name}{order}\n").into_bytes()));
    }
    let rows = machine.taped();
    let fits = rows.len() <= answers::MOST_SOCKETS;
    if !fits {
        gaps.push(Gap {
            what: SOCKETS.into(),
            why: format!(
                "{} are more than are kept; they are left out, and what hangs on them",
                counted(rows.len() as u64, "socket")
            ),
            weight: Weight::Minor,
        });
    }
    let by_netlink = fits && subject.snapshot.source == SourceName::SockDiag;
    let taken = by_netlink.then(|| Taken {
        rows,
        answers: answers(machine, subject),
        source: SourceName::SockDiag,
    });
    Recording {
        files,
        taken,
        is_scrubbed: false,
        gaps,
    }
}

/// The byte order of the tables hangs on it, and kernels before Linux 6.1 do not show it.
const ARCH: &str = "sys/kernel/arch";

/// Some sysctls answer one read() only, so the buffer is large from the beginning.
fn read(machine: &Machine, path: &Path) -> io::Result<Vec<u8>> {
    const BUFFER: usize = 1024 * 1024;
    let mut file = machine.open(path)?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other("it is longer than 256 MiB"));
        }
    }
}

fn answers(machine: &Machine, subject: Subject<'_>) -> Answers {
    let Subject {
        snapshot,
        holders,
        flows,
        mut owners,
        routes,
        others,
    } = subject;
    let is_of_netlink = |gap: &&Gap| gap.what.starts_with("sock_diag");
    let gaps = snapshot.gaps.iter().filter(is_of_netlink).cloned();
    let mut told: Vec<Flow> = flows.to_vec();
    told.extend(snapshot.timestamps.keys().chain(snapshot.trials.keys()));
    told.sort_unstable();
    told.dedup();
    let kept = |flow: Flow| KeptFlow {
        timestamps: snapshot.timestamps.get(&flow).copied(),
        trial: snapshot.trials.get(&flow).copied(),
        owners: owners.by_flow.remove(&flow),
        ..KeptFlow::of(&flow)
    };
    let place = machine.place();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Answers {
        version: VERSION,
        taken: now.as_secs(),
        namespace: None,
        option: String::new(),
        netns: machine.netns(),
        addresses: snapshot.addresses.clone(),
        tick_ns: snapshot
            .tick
            .and_then(|tick| u64::try_from(tick.as_nanos()).ok()),
        bound: Some(snapshot.bound.clone()),
        passed_over: snapshot.passed_over.clone(),
        growth: snapshot.growth,
        holders: Some(holders.into()),
        flows: told.into_iter().map(kept).collect(),
        routes,
        unplaced: owners.unplaced,
        service: owners.service,
        owners_gap: owners.gap.map(Into::into),
        look: Some(owners.look),
        around: place.as_ref().map(|place| place.around),
        is_machines: place.and_then(|place| place.is_machines),
        other_namespaces: others,
        gaps: gaps.map(Into::into).collect(),
    }
}

impl Recording {
    /// Notes that it is of `namespace`.
    pub fn settle_in(&mut self, namespace: Namespace) {
        if let Some(taken) = &mut self.taken {
            taken.answers.option.clone_from(&namespace.option);
            taken.answers.around = None;
            taken.answers.namespace = Some(namespace);
        }
    }

    /// Replaces addresses and names by others, the same by the same.
    pub fn scrub(&mut self) {
        self.is_scrubbed = true;
        let mut scrubber = Scrubber::default();
        if let Some(taken) = &mut self.taken {
            scrubber.taken(taken);
        }
        for (name, bytes) in &mut self.files {
            *bytes = scrubber.file(name, bytes);
        }
    }

    /// Whether it has more than files of /proc.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        self.taken.is_some()
    }

    /// How many files it has, and how long they are together.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let lengths = self.files.iter().map(|(_, bytes)| bytes.len() as u64);
        (self.files.len(), lengths.sum())
    }

    /// Puts it at `path`, where nothing is yet: into a folder, or into an archive where the name ends
    /// with `.tar`. It is there as a whole or not at all.
    ///
    /// # Errors
    /// Where something is there, or it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let beside = beside(path);
        let written = if is_archive(path) {
            self.write_archive(&beside)
        } else {
            self.write_folder(&beside)
        };
        let done = written.and_then(|()| name_anew(&beside, path));
        if done.is_err() {
            let _ = fs::remove_file(&beside).or_else(|_| fs::remove_dir_all(&beside));
        }
        done.with_context(|| format!("writing {}", path.display()))
    }

    fn write_folder(&self, root: &Path) -> io::Result<()> {
        fs::create_dir(root)?;
        self.each(|name, write| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap_or(root))?;
            let mut file = BufWriter::new(File::create_new(path)?);
            write(&mut file)?;
            file.flush()
        })
    }

    fn write_archive(&self, path: &Path) -> io::Result<()> {
        let mut archive = Builder::new(BufWriter::new(File::create_new(path)?));
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.each(|name, write| {
            let mut bytes = Vec::new();
            write(&mut bytes)?;
            let mut header = Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(now.as_secs());
            archive.append_data(&mut header, name, bytes.as_slice())
        })?;
        archive.into_inner()?.flush()
    }

    /// Hands each file to `put`: its name, and what writes it.
    fn each(
        &self,
        mut put: impl FnMut(&str, &dyn Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<()>,
    ) -> io::Result<()> {
        for (name, bytes) in &self.files {
            put(&format!("proc/{name}"), &|out| out.write_all(bytes))?;
        }
        if self.is_scrubbed {
            put(SCRUBBED, &|out| {
                writeln!(
                    out,
                    "addresses and names are others in place of the real ones"
                )
            })?;
        }
        let Some(taken) = &self.taken else {
            return Ok(());
        };
        put(SOCKETS, &|out| {
            for socket in &taken.rows {
                writeln!(out, "{}", answers::line(socket))?;
            }
            Ok(())
        })?;
        put(ANSWERS, &|out| {
            serde_json::to_writer_pretty(&mut *out, &taken.answers)?;
            writeln!(out)
        })
    }
}

/// Gives `new` its name `path`, unless something has it: a folder is not put in place of anything but
/// an empty one, and a file of nothing.
fn name_anew(new: &Path, path: &Path) -> io::Result<()> {
    if new.is_dir() {
        return fs::rename(new, path);
    }
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        // Not every filesystem knows that: the name is taken first.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            File::create_new(path)?;
            fs::rename(new, path).inspect_err(|_| {
                let _ = fs::remove_file(path);
            })
        }
        done => Ok(done?),
    }
}

/// Whether a recording at `path` is an archive.
#[must_use]
pub fn is_archive(path: &Path) -> bool {
    path.extension()
        .is_some_and(|it| it.eq_ignore_ascii_case("tar"))
}

/// Finds out, before the look, whether a recording can be put at `path`; nothing is left there.
///
/// # Errors
/// Where something is there already, or nothing can be.
pub fn check(path: &Path) -> Result<(), Refusal> {
    let name = path.display();
    let is_empty_folder = || {
        fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) && !is_archive(path)
    };
    if path.symlink_metadata().is_ok() && !is_empty_folder() {
        return Err(Refusal::new(
            format!("{name} is there already, and is not written over"),
            "name another, or remove it first",
        ));
    }
    let beside = beside(path);
    let trial = fs::create_dir(&beside).and_then(|()| fs::remove_dir(&beside));
    trial.map_err(|error| {
        Refusal::new(
            format!("{name} cannot be written: {error}"),
            "name a folder or a .tar file in a folder that this user may write",
        )
    })
}

/// A name in the folder of `path` that nobody has.
fn beside(path: &Path) -> PathBuf {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let name = format!(".twcheck-{}-{}", process::id(), now.as_nanos());
    // A name that ends with a slash is one of a folder.
    let path: PathBuf = path.components().collect();
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_meanwhile_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, is_folder) in [("host.tar", false), ("host", true)] {
            let recording = Recording {
                files: vec![(ARCH, b"x86_64\n".to_vec())],
                taken: None,
                is_scrubbed: false,
                gaps: Vec::new(),
            };
            check(&at(name)).unwrap();
            if is_folder {
                fs::create_dir(at(name)).unwrap();
                fs::write(at(name).join("mine"), "mine").unwrap();
            } else {
                fs::write(at(name), "mine").unwrap();
            }
            recording.write(&at(name)).unwrap_err();
            let mine = if is_folder {
                at(name).join("mine")
            } else {
                at(name)
            };
            assert_eq!(fs::read_to_string(mine).unwrap(), "mine");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name}");
            fs::remove_file(at(name))
                .or_else(|_| fs::remove_dir_all(at(name)))
                .unwrap();
            recording.write(&at(name)).unwrap();
            fs::remove_file(at(name))
                .or_else(|_| fs::remove_dir_all(at(name)))
                .unwrap();
        }
    }
}
