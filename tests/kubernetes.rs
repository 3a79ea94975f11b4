//! Inside a pod's network namespace, and on a node that keeps NodePorts.

mod common;

use std::fs;
use std::process::{Command, Output, Stdio};

use common::{assert_valid, command, exit, in_namespace, json, run, skip, stdout, text};
use serde_json::{Value, json};

/// As in a pod: the variable that Kubernetes sets in each.
fn in_pod(arguments: &[&str]) -> Output {
    let mut command = command(arguments);
    command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    command.output().unwrap()
}

/// What another program reads in `yaml`; `None` where there is none.
fn parsed(test: &str, yaml: &str) -> Option<Value> {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.argv[1])))";
    let python = Command::new("python3").args(["-c", script, yaml]).output();
    match python {
        Ok(output) if output.status.success() => {
            Some(serde_json::from_slice(&output.stdout).unwrap())
        }
        Ok(output) if text(&output).contains("No module named 'yaml'") => {
            skip(test, "python3 has no yaml (apt-get install python3-yaml)");
            None
        }
        Ok(output) => panic!("{}\n{yaml}", text(&output)),
        Err(error) => {
            skip(test, &format!("python3: {error}"));
            None
        }
    }
}

#[test]
fn a_pods_settings_are_written_as_its_security_context() {
    let test = "a_pods_settings_are_written_as_its_security_context";
    in_namespace(test, || {
        let _service = common::serve("127.0.0.1:11400");
        let yaml = stdout(&in_pod(&["advise", "--format", "kubernetes"]));
        let said = in_pod(&["advise", "--json"]);
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_valid("advise", &said);
        let changes = said["changes"].as_array().unwrap();
        let safe: Vec<_> = changes
            .iter()
            .map(|it| (it["sysctl"].as_str().unwrap(), it["safe_in_pod"].clone()))
            .collect();
        assert_eq!(
            safe,
            [
                ("net.ipv4.tcp_tw_reuse", json!(false)),
                ("net.ipv4.ip_local_reserved_ports", json!("1.27")),
                ("net.ipv4.ip_local_port_range", json!(true)),
            ]
        );
        // Of several unsafe ones the flag names each once.
        assert!(
            yaml.contains("#   kubelet --allowed-unsafe-sysctls=net.ipv4.tcp_tw_reuse\n"),
            "{yaml}"
        );
        assert!(yaml.contains("    # Safe since Kubernetes 1.27"), "{yaml}");
        let Some(read) = parsed(test, &yaml) else {
            return;
        };
        let wanted: Vec<_> = changes
            .iter()
            .map(|it| json!({"name": it["sysctl"], "value": it["recommended"]}))
            .collect();
        assert_eq!(read, json!({"securityContext": {"sysctls": wanted}}));
        // The kernel takes them as they are, after which there is nothing left to write.
        for change in wanted {
            let [name, value] = ["name", "value"].map(|it| change[it].as_str().unwrap());
            common::sysctl(name, value);
        }
        let yaml = stdout(&in_pod(&["advise", "--format", "kubernetes"]));
        let read = parsed(test, &yaml).unwrap();
        assert_eq!(read, json!({"securityContext": {"sysctls": []}}), "{yaml}");
    });
}

#[test]
fn in_a_container_it_says_whose_settings_are_judged() {
    in_namespace("in_a_container_it_says_whose_settings_are_judged", || {
        let table = in_pod(&["advise"]);
        assert_eq!(exit(&table), 0);
        let table = stdout(&table);
        let line = table.lines().find(|line| line.starts_with("Whose: "));
        let line = line.unwrap_or_else(|| panic!("{table}"));
        assert!(
            line.contains("judged is the network namespace of this pod ("),
            "{line}"
        );
        assert!(
            line.contains("what is set on the node does not reach it"),
            "{line}"
        );
        assert!(
            table.contains("To apply: `twcheck advise --format kubernetes`"),
            "{table}"
        );
        let mut container = command(&["advise", "--json"]);
        let output = container
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env("container", "podman")
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_valid("advise", &said);
        let place = &said["place"];
        assert_eq!(
            (&place["of"], &place["is_machines"]),
            (&json!("container"), &json!(false))
        );
        let meaning = place["meaning"].as_str().unwrap();
        assert!(
            meaning.contains("what is set on the host does not reach it"),
            "{meaning}"
        );
    });
}

/// What is recommended to be reserved, and the risk of the range.
fn reservation() -> (String, String) {
    let said = json(&["advise", "--json"]);
    let changes = said["changes"].as_array().unwrap();
    let of = |name: &str| changes.iter().find(|it| it["sysctl"] == name);
    let range = of("net.ipv4.ip_local_port_range").unwrap();
    assert_eq!(range["recommended"], "10240 65535", "it takes NodePorts in");
    let reserved = of("net.ipv4.ip_local_reserved_ports").unwrap();
    let field = |change: &Value, name: &str| change[name].as_str().unwrap().to_owned();
    (field(reserved, "recommended"), field(range, "risk"))
}

#[test]
fn node_ports_are_reserved_where_kube_proxy_or_its_rules_are_seen() {
    let test = "node_ports_are_reserved_where_kube_proxy_or_its_rules_are_seen";
    if Command::new("nft").arg("--version").output().is_err() {
        return skip(test, "nft is not installed (apt-get install nftables)");
    }
    in_namespace(test, || {
        let _service = common::serve("127.0.0.1:11400");
        let (reserved, risk) = reservation();
        assert_eq!(reserved, "11400");
        let unseen = "NodePorts (30000-32767) are not reserved from it: neither kube-proxy nor its \
                      rules are seen here";
        assert!(risk.contains(unseen), "{risk}");

        for (rules, found) in [
            (
                "add table ip nat; add chain ip nat KUBE-NODEPORTS",
                "chain KUBE-NODEPORTS of table nat",
            ),
            (
                "add table ip kube-proxy; add chain ip kube-proxy services",
                "chain services of table kube-proxy",
            ),
        ] {
            run("nft", &[rules]);
            let (reserved, risk) = reservation();
            assert_eq!(reserved, "11400,30000-32767");
            assert!(risk.contains(found), "{risk}");
            run("nft", &["flush ruleset"]);
        }

        let folder = tempfile::tempdir().unwrap();
        let proxy = folder.path().join("kube-proxy");
        fs::copy("/bin/sleep", &proxy).unwrap();
        let mut proxy = Command::new(proxy)
            .arg("60")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (reserved, risk) = reservation();
        let pid = format!("kube-proxy, pid {}", proxy.id());
        proxy.kill().unwrap();
        proxy.wait().unwrap();
        assert_eq!(reserved, "11400,30000-32767");
        assert!(risk.contains(&pid), "{risk}");
    });
}
