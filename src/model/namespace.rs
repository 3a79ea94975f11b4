use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::{counted, printable, shell_word};

/// A network namespace of this machine, and who lives in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its inode, as `lsns -t net` prints it; `None` where this user may not see it.
    pub netns: Option<u64>,
    /// What it is called: the name that `ip netns` gives it, or the path at which it is kept; `None`
    /// where it has none.
    pub name: Option<String>,
    /// Whether it is the one that this very process is in.
    pub is_own: bool,
    /// Some of its processes, each program once, the oldest first.
    pub processes: Vec<Inhabitant>,
    /// How many processes there are in it, as far as this user may see them.
    pub processes_total: usize,
    /// How this command is told to look there: `--pid 4711`.
    #[serde(skip)]
    pub option: String,
}

/// A process in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inhabitant {
    /// Its number in the reader's PID namespace.
    pub pid: i32,
    /// Its name, as in /proc/PID/comm.
    pub command: String,
    /// Its systemd unit or container, from its cgroup; `None` where that names neither.
    pub unit: Option<String>,
}

impl Namespace {
    /// `4026532008`, and its name where it has one; `this one` for the own.
    #[must_use]
    pub fn title(&self) -> String {
        let number = self.netns.map(|netns| netns.to_string());
        let name = self.name.as_deref().map(printable);
        let own = self.is_own.then(|| "(this one)".to_owned());
        let words: Vec<_> = [number, name, own].into_iter().flatten().collect();
        words.join(" ")
    }

    /// What runs a program there: `ip netns exec web`, or nsenter.
    #[must_use]
    pub fn entrance(&self) -> String {
        match (&self.name, self.processes.first()) {
            (Some(path), _) if path.contains('/') => format!("nsenter --net={}", shell_word(path)),
            (Some(name), _) => format!("ip netns exec {}", shell_word(name)),
            (None, Some(process)) => format!("nsenter -t {} -n", process.pid),
            (None, None) => "nsenter --net=FILE".into(),
        }
    }

    /// `text` with the commands in it (between backticks) so that they look and act here: those of
    /// twcheck by their option, those of the system by what runs a program here.
    #[must_use]
    pub fn commands(&self, text: &str) -> String {
        const OURS: [&str; 6] = [
            "twcheck verdict",
            "twcheck advise",
            "twcheck states",
            "sudo twcheck verdict",
            "sudo twcheck advise",
            "sudo twcheck states",
        ];
        const ELSEWHERE: [&str; 5] = ["--all-netns", "--netns", "--pid", "--from", "--proc-root"];
        const OF_THE_SYSTEM: [&str; 8] = [
            "sysctl ",
            "ss ",
            "ip ",
            "nstat ",
            "conntrack ",
            "nft ",
            "iptables ",
            "cat /proc/net/",
        ];
        if self.is_own {
            return text.to_owned();
        }
        let settled = |(place, part): (usize, &str)| {
            let ours = OURS
                .iter()
                .find_map(|ours| Some((ours, part.strip_prefix(ours)?)));
            match ours {
                _ if place % 2 == 0 => part.to_owned(),
                Some((_, rest)) if ELSEWHERE.iter().any(|it| rest.contains(it)) => part.to_owned(),
                Some((ours, rest)) => format!("{ours} {}{rest}", self.option),
                None if OF_THE_SYSTEM.iter().any(|it| part.starts_with(it)) => {
                    format!("{} {part}", self.entrance())
                }
                None => part.to_owned(),
            }
        };
        let parts: Vec<_> = text.split('`').enumerate().map(settled).collect();
        parts.join("`")
    }

    /// `nginx, php-fpm and 3 more processes (container 0123456789ab)`; nothing where nobody is
    /// there, or to be seen.
    #[must_use]
    pub fn inhabitants(&self) -> String {
        let names: Vec<_> = self
            .processes
            .iter()
            .map(|process| printable(&process.command))
            .collect();
        let mut text = names.join(", ");
        let more = self.processes_total.saturating_sub(names.len());
        if more > 0 {
            let more = counted(more as u64, "more process");
            text = format!("{text} and {more}");
        }
        let units = self.processes.iter().filter_map(|it| it.unit.as_deref());
        let mut different: Vec<_> = units.map(printable).collect();
        different.sort();
        different.dedup();
        if !different.is_empty() {
            text = format!("{text} ({})", different.join(", "));
        }
        text
    }
}

/// `4026532008 web, of nginx and 3 more processes (container 0123456789ab)`.
impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title())?;
        match self.inhabitants().as_str() {
            "" => f.write_str(", in which no process is seen"),
            inhabitants => write!(f, ", of {inhabitants}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_by_its_number_its_name_and_who_is_in_it() {
        let process = |pid, command: &str, unit: Option<&str>| Inhabitant {
            pid,
            command: command.into(),
            unit: unit.map(Into::into),
        };
        let mut it = Namespace {
            netns: Some(4_026_532_008),
            ..Namespace::default()
        };
        assert_eq!(it.to_string(), "4026532008, in which no process is seen");
        it.name = Some("web".into());
        it.processes = vec![
            process(7, "pause", Some("container 0123456789ab")),
            process(9, "nginx\n", Some("container 0123456789ab")),
        ];
        it.processes_total = 2;
        let said = "4026532008 web, of pause, nginx? (container 0123456789ab)";
        assert_eq!(it.to_string(), said);
        it.processes_total = 5;
        it.is_own = true;
        assert_eq!(
            it.to_string(),
            "4026532008 web (this one), of pause, nginx? and 3 more processes \
             (container 0123456789ab)"
        );
    }

    #[test]
    fn commands_look_and_act_in_the_namespace() {
        let of_process = Namespace {
            option: "--pid 7".into(),
            processes: vec![Inhabitant {
                pid: 7,
                command: "nginx".into(),
                unit: None,
            }],
            ..Namespace::default()
        };
        let named = Namespace {
            option: "--netns web".into(),
            name: Some("web".into()),
            ..Namespace::default()
        };
        let own = Namespace {
            is_own: true,
            ..named.clone()
        };
        let text = "See `twcheck advise --prove`, `ss -tnp` or `strace -f`; twcheck advise. As \
                    root: `sysctl -w net.ipv4.tcp_tw_reuse=1`.";
        assert_eq!(
            of_process.commands(text),
            "See `twcheck advise --pid 7 --prove`, `nsenter -t 7 -n ss -tnp` or `strace -f`; \
             twcheck advise. As root: `nsenter -t 7 -n sysctl -w net.ipv4.tcp_tw_reuse=1`."
        );
        assert_eq!(
            named.commands(text),
            "See `twcheck advise --netns web --prove`, `ip netns exec web ss -tnp` or `strace -f`; \
             twcheck advise. As root: `ip netns exec web sysctl -w net.ipv4.tcp_tw_reuse=1`."
        );
        assert_eq!(own.commands(text), text);
        let odd = Namespace {
            option: "--netns 'a b;c'".into(),
            name: Some("a b;c".into()),
            ..Namespace::default()
        };
        assert_eq!(
            odd.commands(
                "`sudo twcheck verdict --nat` `conntrack -L` `twcheck verdict --all-netns`"
            ),
            "`sudo twcheck verdict --netns 'a b;c' --nat` `ip netns exec 'a b;c' conntrack -L` \
             `twcheck verdict --all-netns`"
        );
    }
}
