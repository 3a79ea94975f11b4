//! What a run of `repro` says beforehand, on stderr.

use super::note;
use crate::repro::Notice;
use crate::words::printable;

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
             `twcheck repro --host {host}`"
        ),
        Notice::Connecting(server) => format!(
            "connecting to {server}; this takes this machine's ports toward it, and they come back \
             after the run as TIME_WAIT ends"
        ),
        Notice::WhetherMysql(longest) => format!(
            "waiting up to {} s whether it greets as MySQL does; --force leaves that out",
            longest.as_secs()
        ),
        Notice::Reuse(server, ports) => return ports.caution(*server),
        Notice::PasswordInUrl => {
            "everybody on this machine can read the password in the URL (ps); \
                                  MYSQL_PWD, ~/.my.cnf and --password-file keep it"
                .into()
        }
        Notice::UnderShownKey => "the password was sent under an RSA key that the server showed and \
                                  nobody vouched for: a machine in between could read it (mysql 9 \
                                  asks for --get-server-public-key first); --tls keeps it from others"
            .into(),
        Notice::OptionFile(text) => (*text).to_owned(),
        Notice::OwnFileIgnored(error) => format!("~/.my.cnf is ignored: {error:#}"),
        Notice::FileOfAllUsers(path) => format!(
            "{path} is not read, and its [client] says to the clients where or how to log in; \
             --defaults-file {path} reads it"
        ),
        Notice::ForMariadbAlone(name, is_overruled) => {
            if *is_overruled {
                format!("MYSQL_{name} counts, as for mysql; mariadb takes MARIADB_{name}")
            } else {
                format!("MARIADB_{name} counts, as for mariadb; mysql does not know it")
            }
        }
        Notice::PasswordFileIsOpen(path, mode) => format!(
            "others on this machine may read the password in {0} (mode {mode:03o}); chmod 600 {0}",
            path.display()
        ),
        Notice::NoneAnswers(addresses) => format!(
            "none of its addresses takes a connection: {}",
            addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Notice::LoginPathNotRead => "~/.mylogin.cnf is not read, and the mysql client takes its \
                                     [client] after every other file; `mysql_config_editor print \
                                     --all` shows what it says"
            .into(),
    })
}
