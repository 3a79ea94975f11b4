//! The binary on recorded hosts: every format, word for word, and the JSON against its schema.

mod common;

use common::{assert_valid, exit, has_namespaces, stdout, text, twcheck};

const HOSTS: [&str; 3] = ["busy-server-6.18", "exhausted-6.18", "recycle-3.10"];

fn on(host: &str, arguments: &[&str]) -> (i32, String) {
    let root = format!("tests/hosts/{host}/proc");
    let output = twcheck(&[arguments, &["--proc-root", &root]].concat());
    (exit(&output), stdout(&output))
}

/// The name of a file without blanks.
fn snapshot(host: &str, arguments: &str) -> String {
    let words = arguments.replace("--", "").replace(':', "-");
    format!("{host}_{}", words.replace(' ', "_"))
}

#[test]
fn tables_and_lines_are_as_reviewed() {
    for host in HOSTS {
        for arguments in [
            &["verdict"][..],
            &["verdict", "--format", "plain"],
            &["verdict", "192.0.2.1:3306"],
            &["states", "192.0.2.1"],
            &["states", "--all", "--by", "flow"],
            &["states", "--format", "plain"],
            &["advise"],
            &["advise", "--target-rate", "2000", "--busy", "20ms"],
            &["advise", "--format", "plain"],
            &["advise", "--format", "sysctl"],
        ] {
            let (status, shown) = on(host, arguments);
            let name = snapshot(host, &arguments.join(" "));
            insta::assert_snapshot!(name, format!("{shown}exit {status}\n"));
        }
    }
}

#[test]
fn json_is_as_reviewed() {
    for host in HOSTS {
        for command in ["verdict", "states", "advise"] {
            let (_, shown) = on(host, &[command, "--json"]);
            insta::assert_snapshot!(snapshot(host, &format!("{command} json")), shown);
        }
    }
}

#[test]
fn no_name_of_a_snapshot_has_a_blank() {
    let files = std::fs::read_dir("tests/snapshots").unwrap();
    let names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.is_empty());
    let blank: Vec<_> = names
        .iter()
        .filter(|name| name.contains(char::is_whitespace))
        .collect();
    assert_eq!(blank, Vec::<&String>::new());
}

#[test]
fn json_keeps_its_contract() {
    for command in ["verdict", "states", "advise"] {
        for host in HOSTS {
            let (_, shown) = on(host, &[command, "--json"]);
            assert_valid(command, &serde_json::from_str(&shown).unwrap());
        }
        let live = twcheck(&[command, "--json"]);
        assert_valid(
            command,
            &serde_json::from_slice(&live.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", text(&live))),
        );
    }
}

#[test]
fn the_json_of_a_run_keeps_its_contract() {
    if !has_namespaces("the_json_of_a_run_keeps_its_contract") {
        return;
    }
    let output = twcheck(&["repro", "--json", "--connections", "20"]);
    assert_valid(
        "repro",
        &serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output))),
    );
}
