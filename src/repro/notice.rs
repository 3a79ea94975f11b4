use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::judge::toward::PortsToward;

/// What a user should hear before a run, beside its report.
#[derive(Debug)]
pub enum Notice<'a> {
    /// It goes to the embedded server.
    Embedded,
    /// This names a server that the run does not go to: its name, and where that stands.
    NotReached(&'a str, &'a str),
    /// It goes to this server.
    Connecting(&'a str),
    /// It is waited for so long whether that greets as MySQL does.
    WhetherMysql(Duration),
    /// What reuse of TIME_WAIT may do to a run toward this server.
    Reuse(SocketAddr, &'a PortsToward),
    /// The password in a URL is no secret on this machine.
    PasswordInUrl,
    /// The password has been sent under a key that the server showed, and nobody vouched for.
    UnderShownKey,
    /// What is passed over in an option file, or read as only one of the clients reads it.
    OptionFile(&'a str),
    /// The user's own option file does not count.
    OwnFileIgnored(&'a anyhow::Error),
    /// `~/.mylogin.cnf` is not read.
    LoginPathNotRead,
    /// This option file of all users is about the login, and is not read.
    FileOfAllUsers(&'a str),
    /// A variable of the environment with this end is set for mariadb; whether one for mysql counts
    /// instead.
    ForMariadbAlone(&'a str, bool),
    /// Others may read the file of the password, which has this mode.
    PasswordFileIsOpen(&'a Path, u32),
    /// None of these addresses of one name takes a connection.
    NoneAnswers(&'a [SocketAddr]),
}
