//! A real MariaDB.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::{run, skip, stdout, text};

/// A MariaDB on a data directory of its own, reachable at 127.0.0.1, [::1] and 192.0.2.1.
pub struct MariaDb {
    server: Child,
    pub folder: tempfile::TempDir,
    _alone: Flock<std::fs::File>,
}

impl MariaDb {
    const PORT: &str = "3306";

    pub fn start() -> Self {
        Self::start_with(&["--skip-name-resolve"])
    }

    pub fn start_with(more: &[&str]) -> Self {
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        // One at a time: several that install themselves at once run short of asynchronous I/O.
        let lock = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mariadb.lock");
        let alone = std::fs::File::create(lock).unwrap();
        let alone = Flock::lock(alone, FlockArg::LockExclusive).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let data = format!("--datadir={}", path("data"));
        // In a shared one another server that starts clears its temporary tables away.
        let temporary = format!("--tmpdir={}", folder.path().display());
        run(
            "mariadb-install-db",
            &[
                "--no-defaults",
                &data,
                &temporary,
                "--user=root",
                "--skip-test-db",
                "--innodb-use-native-aio=0",
                "--auth-root-authentication-method=normal",
            ],
        );
        let socket = path("socket");
        let server = Command::new("mariadbd")
            .args([
                "--no-defaults",
                "--user=root",
                &data,
                &temporary,
                "--port",
                Self::PORT,
                "--bind-address=*",
            ])
            .arg(format!("--socket={socket}"))
            .args([
                "--plugin-load-add=auth_ed25519",
                "--innodb-buffer-pool-size=16M",
                "--innodb-use-native-aio=0",
                "--max-connections=100",
            ])
            .args(more)
            .args(certificates(folder.path()))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .expect("mariadbd starts");
        let mut database = Self {
            server,
            folder,
            _alone: alone,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let log = || std::fs::read_to_string(database.folder.path().join("log")).unwrap();
            assert_eq!(database.server.try_wait().unwrap(), None, "{}", log());
            assert!(Instant::now() < deadline, "{}", log());
            thread::sleep(Duration::from_millis(50));
        }
        database.query(
            "CREATE USER app@'%' IDENTIFIED BY 'correct horse'; CREATE DATABASE shop; \
             GRANT ALL ON shop.* TO app@'%'; \
             CREATE USER single@'%' IDENTIFIED BY 'correct horse' WITH MAX_USER_CONNECTIONS 1; \
             CREATE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('correct horse'); \
             CREATE USER secret@'%' IDENTIFIED BY 'correct horse' REQUIRE SSL; \
             CREATE USER locked@'%' IDENTIFIED BY 'correct horse' ACCOUNT LOCK; \
             CREATE USER stale@'%' IDENTIFIED BY 'correct horse' PASSWORD EXPIRE",
        );
        database
    }

    pub fn query(&self, sql: &str) -> String {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        stdout(&run(
            "mariadb",
            &[
                "--no-defaults",
                &socket,
                "--user=root",
                "--batch",
                "--skip-column-names",
                "--execute",
                sql,
            ],
        ))
    }

    pub fn authority(&self) -> String {
        self.folder
            .path()
            .join("ca.pem")
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub fn password_file(&self) -> String {
        let path = self.folder.path().join("password");
        std::fs::write(&path, "correct horse\n").unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// An authority and a certificate that it signed for the server: the server's options.
fn certificates(folder: &Path) -> [String; 3] {
    let openssl = |arguments: &str| {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let output = Command::new("openssl")
            .args(&arguments)
            .current_dir(folder)
            .output()
            .expect("openssl runs");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    };
    let names = "subjectAltName=DNS:localhost,IP:192.0.2.1";
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test");
    openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server");
    fs::write(folder.join("names"), names).unwrap();
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 \
         -extfile names",
    );
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    [
        format!("--ssl-ca={}", path("ca.pem")),
        format!("--ssl-cert={}", path("server.pem")),
        format!("--ssl-key={}", path("server.key")),
    ]
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Whether the package is there; where it is not, the test is skipped aloud.
pub fn has_mariadb(test: &str) -> bool {
    let there = Path::new("/usr/sbin/mariadbd").exists();
    if !there {
        skip(test, "no mariadbd: apt-get install mariadb-server");
    }
    there
}
