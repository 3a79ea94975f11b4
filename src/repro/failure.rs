use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::cause::{Call, Cause, Stage, TlsTrouble};
use super::protocol::Protocol;
use super::wire::PATIENCE;
use crate::judge::destination::Explained;
use crate::judge::toward::Shortage;
use crate::model::{FAILURES, FailureKind, Row};
use crate::words::{errno_words, shown};

/// What is known of the flow that a connection could not join.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Whether there is an address of this machine to go from.
    pub has_source: bool,
    /// Why it has no port.
    pub shortage: Shortage,
}

/// Why a connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The system's number; `None` where the server or this client said no.
    pub errno: Option<i32>,
    /// The server's number; `None` where it said nothing.
    pub mysql_code: Option<u16>,
    /// The class.
    pub kind: FailureKind,
    /// As an application prints it.
    pub text: String,
}

impl Failure {
    /// Classifies the `cause` of a failed attempt to reach the server with this name and address.
    /// `flow` is asked only where it decides.
    pub fn new(
        cause: &Cause,
        (name, server): (&str, SocketAddr),
        protocol: Protocol,
        flow: impl FnOnce() -> Flow,
    ) -> Self {
        let (errno, mysql_code) = match cause {
            Cause::System { errno, .. } => (Some(*errno), None),
            Cause::Lost { errno, .. } => (*errno, None),
            Cause::Server(error) | Cause::DeniedUnderTls(error) => (None, Some(error.code)),
            _ => (None, None),
        };
        Self {
            errno,
            mysql_code,
            kind: kind(cause, flow),
            text: shown(&text(cause, name, server, protocol)),
        }
    }

    /// In plain words: what it means.
    #[must_use]
    pub fn meaning(&self, server: SocketAddr) -> String {
        let meaning = self.kind.row().meaning;
        meaning
            .replace("{server}", &server.to_string())
            .replace("{address}", &server.ip().to_string())
            .replace("{error}", &errno_words(self.errno.unwrap_or(0)))
    }

    /// What to do about it.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        self.kind.row().next_step
    }

    /// Whether ports ran out, of whatever kind.
    #[must_use]
    pub fn is_exhaustion(&self) -> bool {
        self.kind.is_exhaustion()
    }

    /// The same as a finding has it, about `server`.
    #[must_use]
    pub fn explained(&self, server: SocketAddr) -> Explained {
        let step = self.next_step();
        let mut letters = step.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        Explained {
            errno: self.errno,
            text: self.text.clone(),
            meaning: self.meaning(server),
            next_step: format!("{}{}.", first.unwrap_or_default(), letters.as_str()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

fn kind(cause: &Cause, flow: impl FnOnce() -> Flow) -> FailureKind {
    use FailureKind as Kind;
    const EADDRNOTAVAIL: i32 = 99;
    match cause {
        Cause::System {
            call: Call::Bind,
            errno: EADDRNOTAVAIL,
        } => Kind::SourceNotHere,
        Cause::System {
            errno: EADDRNOTAVAIL,
            ..
        } => match flow() {
            Flow {
                has_source: false, ..
            } => Kind::AddressNotAvailable,
            Flow { shortage, .. } => match shortage {
                Shortage::Taken => Kind::EphemeralPortsExhausted,
                Shortage::HeldByBind => Kind::PortsHeldByBind,
                Shortage::Reserved => Kind::PortsReserved,
                Shortage::Unknown => Kind::NoPortUnexplained,
            },
        },
        Cause::System { errno, .. } => of(|row| row.errnos.contains(errno)).unwrap_or(Kind::Other),
        // What MySQL Router passes on: "… (99)".
        Cause::Server(error)
            if matches!(error.code, 2002 | 2003) && error.message.contains("(99)") =>
        {
            Kind::ProxyOutOfPorts
        }
        // MariaDB: "Proxy header is not accepted from …".
        Cause::Server(error) if error.code == 1130 && error.message.contains("Proxy header") => {
            Kind::OutOfStep
        }
        Cause::Server(error) if error.code == 1226 && !cause.is_want_of_room() => Kind::HourlyLimit,
        Cause::Server(error) => {
            of(|row| row.codes.contains(&error.code)).unwrap_or(Kind::ServerError)
        }
        Cause::DeniedUnderTls(_) => Kind::AccessDeniedUnderTls,
        Cause::Lost { .. } => Kind::LostDuringHandshake,
        Cause::Slow { after, .. } if *after < PATIENCE => Kind::TooLittleTime,
        Cause::Slow {
            stage: Stage::Greeting,
            ..
        } => Kind::NoGreeting,
        Cause::Slow { .. } | Cause::PoolNotOpen { .. } => Kind::SlowHandshake,
        Cause::PoolBusy { .. } => Kind::PoolTooSmall,
        Cause::NotMysql => Kind::NotMysql,
        Cause::Tls(trouble) => match trouble {
            TlsTrouble::WrongName(_) => Kind::TlsWrongName,
            TlsTrouble::NoName(_) => Kind::TlsNoName,
            TlsTrouble::UnknownIssuer(_) => Kind::TlsUnknownIssuer,
            TlsTrouble::NotOffered => Kind::TlsNotOffered,
            TlsTrouble::NothingInCommon(_) => Kind::TlsNothingInCommon,
            TlsTrouble::ClientCertificate(_) => Kind::TlsClientCertificate,
            TlsTrouble::ClientUnknown(_) => Kind::TlsClientUnknown,
            TlsTrouble::ClientCertificateRequired(_) => Kind::TlsClientCertificateRequired,
            TlsTrouble::Other(_) => Kind::TlsFailed,
        },
        Cause::Plugin(_) => Kind::AuthenticationPlugin,
        Cause::Unsendable(_) => Kind::PasswordNotSent,
        Cause::Other(_) => Kind::Other,
    }
}

fn of(is_it: impl Fn(&Row) -> bool) -> Option<FailureKind> {
    FAILURES.iter().find(|row| is_it(row)).map(|row| row.kind)
}

/// What an application prints: in the words of the mysql client where it has some.
fn text(cause: &Cause, name: &str, server: SocketAddr, protocol: Protocol) -> String {
    match cause {
        Cause::System { errno, .. } if protocol == Protocol::Tcp => {
            format!("connect to {name}: {}", errno_words(*errno))
        }
        Cause::System { errno, .. } => format!(
            "ERROR 2003 (HY000): Can't connect to MySQL server on '{name}:{}' ({errno})",
            server.port()
        ),
        Cause::Server(_) | Cause::DeniedUnderTls(_) => in_words(cause),
        Cause::Lost { stage, errno } => {
            let at = match stage {
                Stage::Greeting => "reading initial communication packet",
                Stage::Tls | Stage::Login => "reading authorization packet",
                Stage::Question => {
                    return "ERROR 2013 (HY000): Lost connection to MySQL server during query"
                        .into();
                }
            };
            format!(
                "ERROR 2013 (HY000): Lost connection to MySQL server at '{at}', system error: {}",
                errno.unwrap_or(0)
            )
        }
        Cause::Slow { stage, after } => format!(
            "'{name}' had not finished {stage} after {:.1} s",
            after.as_secs_f64()
        ),
        Cause::PoolNotOpen {
            opened,
            size,
            after,
        } => format!(
            "only {opened} of the pool's {size} connections were open after {:.1} s",
            after.as_secs_f64()
        ),
        Cause::PoolBusy { size, after } => format!(
            "no connection of the pool came free within {:.1} s: all {size} were lent",
            after.as_secs_f64()
        ),
        Cause::NotMysql => format!("'{name}' does not speak the MySQL protocol"),
        Cause::Tls(trouble) => format!("ERROR 2026 (HY000): TLS/SSL error: {trouble}"),
        Cause::Plugin(plugin) => format!(
            "ERROR 2059 (HY000): Authentication plugin '{plugin}' cannot be loaded: twcheck does \
             not speak it"
        ),
        Cause::Unsendable(why) => format!("the password cannot be sent: {why}"),
        Cause::Other(text) => text.clone(),
    }
}

/// Why the watching connection ended.
pub(super) fn in_words(cause: &Cause) -> String {
    shown(&match cause {
        Cause::Server(error) | Cause::DeniedUnderTls(error) => {
            format!("ERROR {} ({}): {}", error.code, error.state, error.message)
        }
        Cause::Slow { stage, after } => format!(
            "the server had not finished {stage} after {:.1} s",
            after.as_secs_f64()
        ),
        Cause::NotMysql => "the server answered as no MySQL server does".into(),
        _ => "the server broke off the watching connection".into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mysql::MySqlError;

    use super::*;

    fn system(errno: i32) -> Cause {
        Cause::System {
            call: Call::Connect,
            errno,
        }
    }

    fn server(code: u16, message: &str) -> Cause {
        Cause::Server(MySqlError {
            state: "08004".into(),
            message: message.into(),
            code,
        })
    }

    fn told(cause: &Cause, flow: Flow) -> Failure {
        let address = "192.0.2.1:3306".parse().unwrap();
        Failure::new(cause, ("db", address), Protocol::Mysql, || flow)
    }

    const FULL: Flow = Flow {
        has_source: true,
        shortage: Shortage::Taken,
    };

    #[test]
    fn every_kind_is_one_row_and_no_number_means_two_things_by_itself() {
        let mut codes: Vec<u16> = Vec::new();
        for (place, row) in FAILURES.iter().enumerate() {
            let first = FAILURES.iter().position(|other| other.kind == row.kind);
            assert_eq!(first, Some(place), "{:?}", row.kind);
            codes.extend(row.codes);
            assert!(row.meaning.ends_with('.') && !row.next_step.ends_with('.'));
        }
        let numbers = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), numbers);
    }

    #[test]
    fn every_look_alike_is_told_apart() {
        use FailureKind as Kind;
        let lost = Cause::Lost {
            stage: Stage::Login,
            errno: Some(104),
        };
        let slow = |stage, seconds| Cause::Slow {
            stage,
            after: Duration::from_secs(seconds),
        };
        for (cause, kind) in [
            (system(98), Kind::SourcePortsExhausted),
            (system(97), Kind::NoIpv6),
            (system(111), Kind::ConnectionRefused),
            (system(113), Kind::NoRoute),
            (system(101), Kind::NoRoute),
            (system(22), Kind::NoRoute),
            (system(110), Kind::NoAnswer),
            (system(24), Kind::TooManyOpenFiles),
            (system(13), Kind::PermissionDenied),
            (system(104), Kind::LostDuringHandshake),
            (system(5), Kind::Other),
            (lost, Kind::LostDuringHandshake),
            (slow(Stage::Greeting, 3), Kind::TooLittleTime),
            (slow(Stage::Login, 3), Kind::TooLittleTime),
            (slow(Stage::Greeting, 10), Kind::NoGreeting),
            (slow(Stage::Login, 10), Kind::SlowHandshake),
            (
                server(1226, "has exceeded the 'max_connections_per_hour' resource"),
                Kind::HourlyLimit,
            ),
            (
                server(1226, "has exceeded the 'max_user_connections' resource"),
                Kind::UserLimit,
            ),
            (server(1203, "no"), Kind::UserLimit),
            (server(1698, "no"), Kind::SocketAccount),
            (Cause::NotMysql, Kind::NotMysql),
            (server(1040, "no"), Kind::TooManyConnections),
            (server(1045, "no"), Kind::AccessDenied),
            (server(4150, "no"), Kind::AccountLocked),
            (server(3955, "no"), Kind::AccountLocked),
            (server(1524, "no"), Kind::PluginNotLoaded),
            (
                server(1130, "Host 'a' is not allowed"),
                Kind::HostNotAllowed,
            ),
            (
                server(1130, "Proxy header is not accepted from a"),
                Kind::OutOfStep,
            ),
            (
                server(2003, "Can't connect (111)"),
                Kind::ProxyCannotConnect,
            ),
            (server(2003, "Can't connect (99)"), Kind::ProxyOutOfPorts),
            (server(1064, "no"), Kind::ServerError),
            (Cause::Plugin("dialog".into()), Kind::AuthenticationPlugin),
        ] {
            assert_eq!(told(&cause, FULL).kind, kind, "{cause:?}");
        }
    }

    #[test]
    fn errno_99_is_exhaustion_wherever_there_is_an_address_to_go_from() {
        use FailureKind as Kind;
        let bind = Cause::System {
            call: Call::Bind,
            errno: 99,
        };
        let flow = |has_source, shortage| Flow {
            has_source,
            shortage,
        };
        let has = |shortage| flow(true, shortage);
        for (cause, flow, kind) in [
            (system(99), FULL, Kind::EphemeralPortsExhausted),
            (system(99), has(Shortage::HeldByBind), Kind::PortsHeldByBind),
            (system(99), has(Shortage::Reserved), Kind::PortsReserved),
            (system(99), has(Shortage::Unknown), Kind::NoPortUnexplained),
            (
                system(99),
                flow(false, Shortage::Taken),
                Kind::AddressNotAvailable,
            ),
            (bind, FULL, Kind::SourceNotHere),
        ] {
            let failure = told(&cause, flow);
            assert_eq!(failure.kind, kind, "{cause:?} {flow:?}");
            let is_open = matches!(
                kind,
                Kind::AddressNotAvailable | Kind::SourceNotHere | Kind::NoPortUnexplained
            );
            assert_eq!(failure.is_exhaustion(), !is_open);
        }
    }

    #[test]
    fn exhaustion_is_told_in_the_applications_words() {
        let failure = told(&system(99), FULL);
        assert_eq!(
            failure.text,
            "ERROR 2003 (HY000): Can't connect to MySQL server on 'db:3306' (99)"
        );
        assert_eq!(
            failure.meaning("192.0.2.1:3306".parse().unwrap()),
            "Cannot assign requested address (errno 99): every local port toward 192.0.2.1:3306 is \
             taken."
        );
    }
}
