//! Rows of /proc/net/tcp and tcp6 (`tcp4_seq_show` in net/ipv4/tcp_ipv4.c, `tcp6_seq_show` in
//! net/ipv6/tcp_ipv6.c).

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::model::{Socket, TcpState};

/// A buffer of the size that the kernel fills in one read() without more system calls than
/// necessary; larger ones gained nothing.
const BUFFER: usize = 64 * 1024;

/// What a file held besides its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Malformed {
    /// Lines that are no row.
    pub lines: u64,
    /// Number of the first such line, the heading being line 1; 0 without any.
    pub first: u64,
}

/// Streams the rows of one file into `row` until it breaks off. A line that is no row is counted,
/// the rest is still read. A file that does not exist has no rows: the kernel has no IPv6.
///
/// # Errors
/// Whatever open() or read() say.
pub fn rows(
    path: &Path,
    ticks_per_second: u64,
    mut row: impl FnMut(&Socket) -> ControlFlow<()>,
) -> io::Result<Malformed> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Malformed::default()),
        file => file?,
    };
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let mut malformed = Malformed::default();
    let mut line = Vec::with_capacity(256);
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if number == 1 {
            continue;
        }
        if let Some(socket) = parse(&line, ticks_per_second) {
            if row(&socket).is_break() {
                break;
            }
        } else {
            malformed.lines += 1;
            if malformed.first == 0 {
                malformed.first = number;
            }
        }
    }
    Ok(malformed)
}

/// One row of either family; `None` when the line is not one. Small sockets (TIME_WAIT, SYN_RECV)
/// have fewer columns than full ones:
///
/// `sl local remote st tx:rx tr:when retrnsmt uid timeout inode …`, `when` being the timer's ticks
/// left.
#[must_use]
pub fn parse(line: &[u8], ticks_per_second: u64) -> Option<Socket> {
    let mut columns = line
        .split(|&byte| byte == b' ' || byte == b'\n')
        .filter(|column| !column.is_empty());
    let slot = columns.next()?;
    if slot.last() != Some(&b':') {
        return None;
    }
    let local = endpoint(columns.next()?)?;
    let remote = endpoint(columns.next()?)?;
    let state = TcpState::from_kernel(u8::try_from(hex(columns.next()?)?).ok()?)?;
    let _queues = columns.next()?;
    let timer = columns.next()?;
    let colon = timer.iter().position(|&byte| byte == b':')?;
    let (kind, ticks) = (hex(&timer[..colon])?, hex(&timer[colon + 1..])?);
    Some(Socket {
        state,
        local,
        remote,
        time_wait_left: (kind == TIMER_TIME_WAIT)
            .then(|| Duration::from_millis(u64::from(ticks) * 1000 / ticks_per_second.max(1))),
        // No process holds a socket that waits for its timer alone.
        inode: if kind == TIMER_TIME_WAIT {
            None
        } else {
            columns.nth(3).and_then(decimal).filter(|&inode| inode != 0)
        },
        interface: None,
        retransmits: 0,
    })
}

/// `tr` of a TIME_WAIT or an orphaned FIN_WAIT2 (`get_timewait4_sock`).
const TIMER_TIME_WAIT: u32 = 3;

/// `ADDRESS:PORT` in hexadecimal: the address as 32-bit words of the machine's own byte order, each
/// holding four bytes in network order.
fn endpoint(text: &[u8]) -> Option<SocketAddr> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let port = u16::try_from(hex(&text[colon + 1..])?).ok()?;
    let address = match text[..colon].len() {
        8 => IpAddr::V4(Ipv4Addr::from(hex(&text[..8])?.to_ne_bytes())),
        32 => {
            let mut octets = [0; 16];
            for (word, digits) in octets.chunks_exact_mut(4).zip(text.chunks_exact(8)) {
                word.copy_from_slice(&hex(digits)?.to_ne_bytes());
            }
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A hexadecimal number of one to eight digits.
fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0, |number, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u32::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    /// Linux 6.18: a listener, a TIME_WAIT with 59.28 s left, an established socket.
    const LISTEN: &str = "   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9034 1 0000000000000000 100 0 0 10 0\n";
    const TIME_WAIT: &str = "   1: 0100007F:9C40 0100007F:0CEA 06 00000000:00000000 03:00001728 00000000     0        0 0 3 0000000000000000\n";
    const V6: &str = "   4: 0000000000000000FFFF00000100007F:9C42 0000000000000000FFFF00000200007F:0CEA 01 00000000:00000000 02:00000123 00000000     0        0 9036 1 0000000000000000 20 0 0 10 -1\n";

    #[test]
    fn linux_6_18_rows_are_read_with_their_timer() {
        assert_eq!(
            parse(TIME_WAIT.as_bytes(), 100),
            Some(Socket {
                state: TcpState::TimeWait,
                local: "127.0.0.1:40000".parse().unwrap(),
                remote: "127.0.0.1:3306".parse().unwrap(),
                time_wait_left: Some(Duration::from_millis(59_280)),
                inode: None,
                interface: None,
                retransmits: 0,
            })
        );
        assert_eq!(
            parse(LISTEN.as_bytes(), 100),
            Some(Socket {
                state: TcpState::Listen,
                local: "127.0.0.1:3306".parse().unwrap(),
                remote: "0.0.0.0:0".parse().unwrap(),
                time_wait_left: None,
                inode: Some(9034),
                interface: None,
                retransmits: 0,
            })
        );
    }

    #[test]
    fn mapped_addresses_fold_into_ipv4_and_a_keepalive_timer_is_not_time_wait() {
        assert_eq!(
            parse(V6.as_bytes(), 100),
            Some(Socket {
                state: TcpState::Established,
                local: "127.0.0.1:40002".parse().unwrap(),
                remote: "127.0.0.2:3306".parse().unwrap(),
                time_wait_left: None,
                inode: Some(9036),
                interface: None,
                retransmits: 0,
            })
        );
    }

    #[test]
    fn ticks_are_read_at_the_clock_they_are_written_in() {
        for (hz, milliseconds) in [(100, 59_280), (250, 23_712), (1000, 5_928)] {
            let left = parse(TIME_WAIT.as_bytes(), hz).unwrap().time_wait_left;
            assert_eq!(left, Some(Duration::from_millis(milliseconds)), "{hz} Hz");
        }
    }

    #[test]
    fn a_malformed_row_is_counted_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp");
        let strange = TIME_WAIT.replace(" 06 ", " 63 ");
        std::fs::write(
            &path,
            [HEADING, LISTEN, "nonsense\n", &strange, TIME_WAIT].concat(),
        )
        .unwrap();
        let mut states = Vec::new();
        let malformed = rows(&path, 100, |socket| {
            states.push(socket.state);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(malformed, Malformed { lines: 2, first: 3 });
        assert_eq!(states, [TcpState::Listen, TcpState::TimeWait]);
    }

    #[test]
    fn a_row_cut_before_its_timer_is_no_row() {
        let needed = TIME_WAIT.find(" 00000000     0").unwrap();
        for length in 0..needed - 8 {
            assert_eq!(
                parse(&TIME_WAIT.as_bytes()[..length], 100),
                None,
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), hz: u64) {
            let _ = parse(&bytes, hz);
        }

        #[test]
        fn no_change_of_one_byte_makes_it_panic(at in 0..TIME_WAIT.len(), byte: u8) {
            let mut line = TIME_WAIT.as_bytes().to_vec();
            line[at] = byte;
            let _ = parse(&line, 100);
        }
    }
}
