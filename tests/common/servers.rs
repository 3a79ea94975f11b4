//! The servers that people run today, from the private roots that tests/servers.sh unpacks.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::network::Host;
use super::{skip_for_want_of, stdout, text};

/// Whose packages are in a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// MySQL 9.7 and MySQL Router.
    Unstable,
    /// MariaDB 11.8.
    Trixie,
    /// HAProxy, Redis, PostgreSQL and nginx.
    Machine,
    /// Prometheus, node_exporter, negate of the monitoring plugins, systemd-analyze.
    Monitoring,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Unstable => "unstable",
            Self::Trixie => "trixie",
            Self::Machine => "machine",
            Self::Monitoring => "monitoring",
        }
    }

    fn folder(self) -> PathBuf {
        target().join("servers").join(self.name())
    }

    /// A file or folder of its root.
    pub fn path(self, inside: &str) -> String {
        let path = self.folder().join("root/usr").join(inside);
        path.to_str().expect("the target folder is text").to_owned()
    }

    /// Its libraries, for programs that start others.
    pub fn libraries(self) -> String {
        let lib = PathBuf::from(self.path("lib"));
        let folders = fs::read_dir(lib)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_it = |folder: &PathBuf| folder.to_str().unwrap().ends_with("-linux-gnu");
        let found = { folders }.find(is_it).expect("a root has libraries");
        found.to_str().unwrap().to_owned()
    }

    /// Whether it is there; where it is not, the test is skipped aloud, also in CI where the suite
    /// cannot be had.
    pub fn is_there(self, test: &str) -> bool {
        let folder = self.folder();
        if folder.join("ready").exists() {
            return true;
        }
        match fs::read_to_string(folder.join("unavailable")) {
            Ok(why) => skip_for_want_of(test, why.trim()),
            Err(_) => super::skip(test, "tests/servers.sh has not unpacked its server"),
        }
        false
    }

    /// A program of it.
    pub fn program(self, name: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers.sh"))
            .args([self.name(), name])
            .env("CARGO_TARGET_DIR", target())
            .stdin(Stdio::null());
        command
    }
}

/// The target folder, which holds the roots.
fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().expect("it is in the target folder").to_owned()
}

/// A database server on a data directory of its own, reachable at 127.0.0.1, [::1], 192.0.2.1 and
/// 2001:db8::1.
pub struct Database {
    suite: Suite,
    process: Child,
    pub folder: tempfile::TempDir,
}

impl Database {
    /// MySQL 9.7.
    pub fn mysql(more: &[&str]) -> Self {
        let suite = Suite::Unstable;
        let folder = tempfile::tempdir().unwrap();
        let data = format!("--datadir={}", folder.path().join("data").display());
        let base = format!("--basedir={}", suite.path(""));
        let common = [
            "--no-defaults",
            "--user=root",
            "--innodb-use-native-aio=0",
            &base,
            &data,
        ];
        let made = suite
            .program("sbin/mysqld")
            .args(common)
            .arg("--initialize-insecure")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        let own = [
            "--mysqlx=0",
            "--skip-log-bin",
            "--secure-file-priv=",
            "--bind-address=*",
            "--innodb-buffer-pool-size=32M",
            "--performance-schema-max-table-instances=50",
        ];
        Self::start(
            suite,
            "sbin/mysqld",
            folder,
            &[&common[..], &own, more].concat(),
        )
    }

    /// MariaDB 11.8.
    pub fn mariadb(more: &[&str]) -> Self {
        let suite = Suite::Trixie;
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let data = format!("--datadir={}", folder.path().join("data").display());
        let base = format!("--basedir={}", suite.path(""));
        let messages = format!("--lc-messages-dir={}", suite.path("share/mariadb"));
        let plugins = format!("--plugin-dir={}", suite.path("lib/mysql/plugin"));
        // In a shared one another server that starts clears its temporary tables away.
        let temporary = format!("--tmpdir={}", folder.path().display());
        let common = [
            "--no-defaults",
            "--user=root",
            "--innodb-use-native-aio=0",
            "--innodb-buffer-pool-size=16M",
            &base,
            &data,
            &messages,
            &plugins,
            &temporary,
        ];
        // What mariadb-install-db says; itself it would run the server without its own libraries.
        let mut sql = b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_vec();
        for file in [
            "mariadb_system_tables.sql",
            "mariadb_performance_tables.sql",
            "mariadb_system_tables_data.sql",
            "maria_add_gis_sp_bootstrap.sql",
            "mariadb_sys_schema.sql",
        ] {
            sql.extend(fs::read(suite.path(&format!("share/mariadb/{file}"))).unwrap());
        }
        let mut bootstrap = suite
            .program("sbin/mariadbd")
            .args(common)
            .args(["--bootstrap", "--enforce-storage-engine="])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut input = bootstrap.stdin.take().unwrap();
        let fed = input.write_all(&sql);
        drop(input);
        let ended = bootstrap.wait().unwrap();
        let log = || fs::read_to_string(folder.path().join("log")).unwrap();
        assert!(fed.is_ok() && ended.success(), "{}", log());
        let own = [
            "--bind-address=*",
            "--plugin-load-add=auth_ed25519;auth_parsec",
            "--performance-schema=ON",
        ];
        Self::start(
            suite,
            "sbin/mariadbd",
            folder,
            &[&common[..], &own, more].concat(),
        )
    }

    fn start(suite: Suite, program: &str, folder: tempfile::TempDir, arguments: &[&str]) -> Self {
        super::run("ip", &["address", "replace", "192.0.2.1/32", "dev", "lo"]);
        super::run(
            "ip",
            &["address", "replace", "2001:db8::1/128", "dev", "lo"],
        );
        let socket = folder.path().join("socket");
        // A host whose name is known can be blocked; the name comes from a file of its own.
        let hosts = folder.path().join("hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n192.0.2.1 client.test\n").unwrap();
        let server = suite.program(program);
        let process = Command::new("unshare")
            .args(["--mount", "--", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(&hosts)
            .arg(server.get_program())
            .args(server.get_args())
            .env("CARGO_TARGET_DIR", target())
            .args(arguments)
            .arg("--port=3306")
            .arg(format!("--socket={}", socket.display()))
            .arg(format!(
                "--pid-file={}",
                folder.path().join("pid").display()
            ))
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut database = Self {
            suite,
            process,
            folder,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&socket).is_err() {
            let ended = database.process.try_wait().unwrap();
            let log = database.log();
            assert!(ended.is_none() && Instant::now() < deadline, "{log}");
            thread::sleep(Duration::from_millis(50));
        }
        database
    }

    /// What it has written into its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Its own client, with these arguments.
    pub fn client(&self, arguments: &[&str]) -> Output {
        let arguments = [&["--no-defaults"], arguments].concat();
        self.bare_client(&arguments).output().unwrap()
    }

    /// The same, with no argument but these.
    pub fn bare_client(&self, arguments: &[&str]) -> Command {
        let name = match self.suite {
            Suite::Trixie => "bin/mariadb",
            _ => "bin/mysql",
        };
        let mut client = self.suite.program(name);
        client.args(arguments).env_remove("MYSQL_PWD");
        client
    }

    /// What root is answered over the socket.
    pub fn query(&self, sql: &str) -> String {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        let output = self.client(&[
            &socket,
            "--user=root",
            "--batch",
            "--skip-column-names",
            "--execute",
            sql,
        ]);
        assert!(output.status.success(), "{sql}: {}", text(&output));
        stdout(&output)
    }

    /// A number that it counts.
    pub fn count(&self, status: &str) -> u64 {
        let row = self.query(&format!("SHOW GLOBAL STATUS LIKE '{status}'"));
        let value = row.split_whitespace().nth(1);
        value
            .unwrap_or_else(|| panic!("{status}: {row}"))
            .parse()
            .unwrap()
    }

    /// A file that it made in its data directory.
    pub fn file(&self, name: &str) -> String {
        let path = self.folder.path().join("data").join(name);
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Another server from a root, ended with the test.
pub struct Service(Child);

impl Service {
    /// Starts `command` on another host, and waits as [`Self::start`] does.
    pub fn start_at(host: &Host, command: &Command, port: u16) -> Self {
        let mut there = host.inside();
        there.arg(command.get_program()).args(command.get_args());
        there.env("CARGO_TARGET_DIR", target());
        let listens = || {
            let ports = format!("( sport = :{port} )");
            !host.run(&["ss", "-Hltn", &ports]).is_empty()
        };
        Self::started(there, port, listens)
    }

    /// Starts it, and waits until something listens on this port, as the table of sockets has it: a
    /// connection would be counted.
    pub fn start(command: Command, port: u16) -> Self {
        Self::started(command, port, || {
            let ports = format!("( sport = :{port} )");
            !super::run("ss", &["-Hltn", &ports]).stdout.is_empty()
        })
    }

    fn started(mut command: Command, port: u16, listens: impl Fn() -> bool) -> Self {
        let log = env::temp_dir().join(format!("twcheck-service-{port}-{}", std::process::id()));
        let process = command
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut service = Self(process);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !listens() {
            let ended = service.0.try_wait().unwrap();
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{port}: {said}"
            );
            thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_file(log);
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
