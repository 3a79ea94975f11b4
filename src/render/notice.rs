//! What a run of `repro` says beforehand, on stderr.

use std::net::SocketAddr;

use super::note;
use crate::model::Reuse;
use crate::repro::{Notice, PortsToward};
use crate::words::{count, printable, rate};

/// Says it.
pub fn tell(notice: &Notice<'_>) {
    if let Some(text) = text(notice) {
        note(&printable(&text));
    }
}

fn text(notice: &Notice<'_>) -> Option<String> {
    Some(match notice {
        Notice::Embedded => "connecting to an embedded server in a private network namespace with \
                             this machine's settings; nothing outside it is touched"
            .into(),
        Notice::NotReached(host, place) => format!(
            "{place} names the server {host}, and this run brings its own; to reach that one: \
             twcheck repro --host {host}"
        ),
        Notice::Connecting(server) => format!(
            "connecting to {server}; this takes this machine's ports toward it, and they come back \
             after the run as TIME_WAIT ends"
        ),
        Notice::Reuse(server, ports) => return reuse(*server, ports),
        Notice::PasswordInUrl => {
            "everybody on this machine can read the password in the URL (ps); \
                                  MYSQL_PWD, ~/.my.cnf and --password-file keep it"
                .into()
        }
        Notice::OptionFile(text) => (*text).to_owned(),
        Notice::OwnFileIgnored(error) => format!("~/.my.cnf is ignored: {error:#}"),
        Notice::LoginPathNotRead => "~/.mylogin.cnf is not read, and the mysql client takes its \
                                     [client] after every other file; `mysql_config_editor print \
                                     --all` shows what it says"
            .into(),
    })
}

/// Where a run may not show exhaustion, and what to use instead.
fn reuse(server: SocketAddr, ports: &PortsToward) -> Option<String> {
    let (max_rate, usable) = (ports.max_rate?, ports.usable?);
    match ports.reuse {
        Reuse::Off | Reuse::Refuted => None,
        Reuse::Allowed | Reuse::Unknown => Some(format!(
            "TIME_WAIT reuse may be in force toward {server}: if it has TCP timestamps, ports do not \
             run out below {} connections/s; if it has none, after {} connections. The run will tell",
            rate(max_rate),
            count(ports.free.unwrap_or(usable))
        )),
        Reuse::Seen => Some(format!(
            "ports will not run out below {} connections/s: TIME_WAIT reuse is in force toward \
             {server}, so each of the {} ports comes back early. {}",
            rate(max_rate),
            count(usable),
            if server.ip().is_loopback() {
                "net.ipv4.tcp_tw_reuse = 2, the default, means loopback; to see them run out, use \
                 `twcheck repro` without a server, or another address of the server's machine"
            } else {
                "To see them run out: twcheck repro --set net.ipv4.tcp_tw_reuse=0"
            }
        )),
    }
}
