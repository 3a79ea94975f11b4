//! `repro` against the servers that people run today: MySQL 9.7, MySQL Router, MariaDB 11.8,
//! HAProxy, Redis, PostgreSQL and nginx from private roots (tests/servers.sh).

mod common;

use common::servers::{Database, Suite};
use common::in_namespace;

#[test]
fn bed() {
    let test = "bed";
    if !Suite::Unstable.is_there(test) || !Suite::Trixie.is_there(test) {
        return;
    }
    in_namespace(test, || {
        let which = std::env::var("BED").unwrap();
        let d = if which == "mysql" { Database::mysql(&[]) } else { Database::mariadb(&[]) };
        let out = std::process::Command::new("bash").arg("/tmp/bed.sh").env("DB", d.folder.path()).env("WHICH", which).status();
        println!("{out:?} {}", d.log());
    });
}
