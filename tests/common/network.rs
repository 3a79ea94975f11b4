//! Other hosts: network namespaces inside the test's own, joined to it by a cable.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};

use super::run;

/// Set for the process that is a server on another host.
const SERVE: &str = "TWCHECK_TEST_SERVE";

/// Another host, at the far end of a cable; gone when it is dropped.
pub struct Host {
    process: Child,
    server: Option<Child>,
}

impl Host {
    /// A host at `there` beside this one at `here`, both with their prefix; `cable` names the
    /// interface here.
    pub fn new(cable: &str, here: &str, there: &str) -> Self {
        let mut process = Command::new("unshare")
            .args(["--net", "--kill-child", "--", "sh", "-c"])
            .arg("ip link set lo up; echo up; exec sleep 120")
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        let mut up = BufReader::new(process.stdout.take().expect("it is piped"));
        up.read_line(&mut line).expect("the host comes up");
        assert_eq!(line, "up\n", "the host comes up");
        let host = Self {
            process,
            server: None,
        };
        let (far, pid) = (format!("{cable}b"), host.pid());
        let cable_ends = ["link", "add", cable, "type", "veth", "peer", "name", &far];
        run("ip", &cable_ends);
        run("ip", &["link", "set", &far, "netns", &pid]);
        run("ip", &["address", "add", here, "dev", cable]);
        run("ip", &["link", "set", cable, "up"]);
        host.run(&["ip", "address", "add", there, "dev", &far]);
        host.run(&["ip", "link", "set", &far, "up"]);
        host
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    /// What runs there whatever follows it.
    pub fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/proc/{}/ns/net", self.pid()), "--"]);
        command
    }

    /// Moves the calling thread there.
    pub fn enter(&self) {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).expect("the host is up");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("this is root of its namespace");
    }

    /// Runs a program there and insists on success.
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.inside().args(words).output().expect("nsenter runs");
        assert!(
            output.status.success(),
            "{words:?}: {}",
            super::text(&output)
        );
        super::stdout(&output)
    }

    /// Starts a server there, one that closes after its client.
    pub fn serve(&mut self, address: &str) -> SocketAddr {
        let mut server = self
            .inside()
            .arg(env::current_exe().expect("the test binary has a path"))
            .args(["be_a_server", "--exact", "--nocapture", "--test-threads=1"])
            .env(SERVE, address)
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter runs");
        let out = BufReader::new(server.stdout.take().expect("it is piped"));
        let ready = out
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("LISTENING"));
        assert!(ready, "the server comes up");
        self.server = Some(server);
        address.parse().expect("the address is one")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for process in self.server.iter_mut().chain([&mut self.process]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What the test called `be_a_server` does: nothing, unless [`Host::serve`] has started it.
pub fn be_a_server() {
    if let Some(address) = env::var_os(SERVE) {
        super::serve(address.to_str().expect("it is an address"));
        println!("LISTENING");
        std::thread::sleep(std::time::Duration::from_secs(110));
    }
}
