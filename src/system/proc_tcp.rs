//! Rows of /proc/net/tcp and tcp6 (`tcp4_seq_show` in net/ipv4/tcp_ipv4.c, `tcp6_seq_show` in
//! net/ipv6/tcp_ipv6.c).

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use super::byte_order::ByteOrder;
use super::{ProcRoot, file};
use crate::model::{Socket, TcpState};
use crate::refusal::Refusal;

/// A buffer of the size that the kernel fills in one read() without more system calls than
/// necessary; larger ones gained nothing.
const BUFFER: usize = 64 * 1024;

/// No row is longer than 200 bytes; a prompt with its command may be. What is longer is no line of
/// text and is not kept.
const LONGEST_LINE: u64 = 4096;

/// More than any table takes: the rows of 28 million sockets.
const LONGEST_TABLE: u64 = 4 * 1024 * 1024 * 1024;

/// How the machine that wrote a table writes numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hand {
    /// Ticks of its timers in a second (`USER_HZ`).
    pub ticks_per_second: u64,
    /// The order in which an address has its bytes.
    pub order: ByteOrder,
}

impl Hand {
    /// That of the machine whose /proc is below `proc`.
    ///
    /// # Errors
    /// As [`ByteOrder::of`].
    pub fn of(proc: &ProcRoot) -> Result<Self, Refusal> {
        Ok(Self {
            ticks_per_second: procfs::ticks_per_second(),
            order: ByteOrder::of(proc)?.unwrap_or(ByteOrder::OWN),
        })
    }
}

/// What a file held besides its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    /// Whether it held nothing at all.
    pub is_empty: bool,
    /// Whether it held a heading or a row, damaged or not: a table without sockets has its heading.
    pub is_table: bool,
    /// Lines that are neither a row nor anything that stands around rows.
    pub malformed: u64,
    /// Number of the first such line, the first of the file being line 1; 0 without any.
    pub first_malformed: u64,
}

/// Streams the rows of one file into `row` until it breaks off. A line that is no row is counted,
/// the rest is still read. `None` where the file does not exist.
///
/// # Errors
/// Whatever open() or read() say; and where it is no regular file, or larger than any table, or has a
/// line longer than any.
pub fn rows(
    file: io::Result<File>,
    hand: Hand,
    mut row: impl FnMut(&Socket) -> ControlFlow<()>,
) -> io::Result<Option<Rest>> {
    let file = match file {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if file.metadata()?.len() > LONGEST_TABLE {
        return Err(io::Error::other(
            "it is larger than 4 GiB, and no socket table is",
        ));
    }
    let mut reader = BufReader::with_capacity(BUFFER, file.take(LONGEST_TABLE));
    let mut rest = Rest {
        is_empty: true,
        ..Rest::default()
    };
    let mut line = Vec::with_capacity(256);
    for number in 1.. {
        if !next_line(&mut reader, &mut line)? {
            break;
        }
        rest.is_empty = false;
        if let Some(socket) = parse(&line, hand) {
            rest.is_table = true;
            if row(&socket).is_break() {
                break;
            }
            continue;
        }
        match Other::of(&line) {
            Other::Heading => {
                if !rest.is_table {
                    // Whatever a terminal showed before the table is no part of it.
                    (rest.malformed, rest.first_malformed) = (0, 0);
                }
                rest.is_table = true;
            }
            Other::Surroundings => {}
            other => {
                rest.is_table |= other == Other::Damaged;
                rest.malformed += 1;
                if rest.malformed == 1 {
                    rest.first_malformed = number;
                }
            }
        }
    }
    Ok(Some(rest))
}

/// The rest of a line that is too long for a row is skipped up to here: what goes on is no table.
const LONGEST_SKIPPED: u64 = 1 << 20;

/// Reads a line into `line`, of one that is too long its beginning; whether there was one.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let read = file::line(reader, LONGEST_LINE, line)?;
    if read as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
        let more = reader.by_ref().take(LONGEST_SKIPPED).skip_until(b'\n')?;
        if more as u64 == LONGEST_SKIPPED {
            return Err(io::Error::other(
                "it has a line of more than 1 MiB, and no socket table has",
            ));
        }
    }
    Ok(read > 0)
}

/// What a line is that is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// `sl local_address …`, at the top or, in two tables one after the other, in the middle.
    Heading,
    /// A blank line, a shell's prompt, a command that names the file: whoever copied the table
    /// from a terminal took it along.
    Surroundings,
    /// A row or a heading that was cut off or damaged.
    Damaged,
    /// Anything else.
    Unknown,
}

impl Other {
    fn of(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        let mut columns = columns(line);
        let Some(first) = columns.next() else {
            return Self::Surroundings;
        };
        if first == b"sl" || holds(line, b"local_address") {
            let is_whole = holds(line, b"inode");
            return if is_whole {
                Self::Heading
            } else {
                Self::Damaged
            };
        }
        if is_slot(first)
            || columns
                .take(2)
                .any(|column| endpoint(column, ByteOrder::OWN).is_some())
        {
            return Self::Damaged;
        }
        if has_prompt(line) || holds(line, b"net/tcp") {
            return Self::Surroundings;
        }
        Self::Unknown
    }
}

/// `root@web:~#`, alone or with a command behind it.
fn has_prompt(line: &[u8]) -> bool {
    let mut words = line.split(u8::is_ascii_whitespace);
    words.any(|word| matches!(word.last(), Some(b'$' | b'#' | b'%' | b'>')))
}

fn holds(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|part| part == word)
}

fn columns(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|column| !column.is_empty())
}

/// `0:`, the number of a row.
fn is_slot(column: &[u8]) -> bool {
    column.split_last().is_some_and(|(last, digits)| {
        *last == b':' && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    })
}

/// One row of either family, whatever its blanks and widths; `None` when the line is not one. Small
/// sockets (TIME_WAIT, SYN_RECV) have fewer columns behind the inode than full ones:
///
/// `sl local remote st tx:rx tr:when retrnsmt uid timeout inode …`, `when` being the timer's ticks
/// left. A row without its inode was cut off: then its last column may be a part of itself.
#[must_use]
pub fn parse(line: &[u8], hand: Hand) -> Option<Socket> {
    let mut columns = columns(line);
    if !is_slot(columns.next()?) {
        return None;
    }
    let local = endpoint(columns.next()?, hand.order)?;
    let remote = endpoint(columns.next()?, hand.order)?;
    let state = TcpState::from_kernel(u8::try_from(hex(columns.next()?)?).ok()?)?;
    let _queues = columns.next()?;
    let (kind, ticks) = timer(columns.next()?)?;
    let retransmits = hex(columns.next()?)?;
    let (_uid, _timeout) = (columns.next()?, columns.next()?);
    let inode = columns.next()?;
    Some(Socket {
        state,
        local,
        remote,
        time_wait_left: match kind {
            TIMER_TIME_WAIT => {
                let milliseconds = u64::from(u32::try_from(ticks).ok()?) * 1000;
                Some(Duration::from_millis(
                    milliseconds / hand.ticks_per_second.max(1),
                ))
            }
            _ => None,
        },
        // No process holds a socket that waits for its timer alone.
        inode: if kind == TIMER_TIME_WAIT {
            None
        } else {
            decimal(inode).filter(|&inode| inode != 0)
        },
        interface: None,
        retransmits: u8::try_from(retransmits).unwrap_or(u8::MAX),
    })
}

/// `tr:when`. Up to Linux 2.6 the ticks of a timer that does not run can be any number of 64 bits.
fn timer(text: &[u8]) -> Option<(u32, u64)> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let (high, low) = match text[colon + 1..].split_last_chunk::<8>() {
        Some((high, low)) if !high.is_empty() => (hex(high)?, hex(low)?),
        _ => (0, hex(&text[colon + 1..])?),
    };
    Some((hex(&text[..colon])?, u64::from(high) << 32 | u64::from(low)))
}

/// `tr` of a TIME_WAIT or an orphaned FIN_WAIT2 (`get_timewait4_sock`).
const TIMER_TIME_WAIT: u32 = 3;

/// `ADDRESS:PORT` in hexadecimal: the address as 32-bit words in the `order` of the machine, each
/// holding four bytes in network order.
fn endpoint(text: &[u8], order: ByteOrder) -> Option<SocketAddr> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let port = u16::try_from(hex(&text[colon + 1..])?).ok()?;
    let address = match text[..colon].len() {
        8 => IpAddr::V4(Ipv4Addr::from(order.bytes(hex(&text[..8])?))),
        32 => {
            let mut octets = [0; 16];
            for (word, digits) in octets.chunks_exact_mut(4).zip(text.chunks_exact(8)) {
                word.copy_from_slice(&order.bytes(hex(digits)?));
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
    use crate::system::file;

    fn hand(ticks_per_second: u64) -> Hand {
        Hand {
            ticks_per_second,
            order: ByteOrder::Little,
        }
    }

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
    /// Linux 6.18: a listener, a TIME_WAIT with 59.28 s left, an established socket.
    const LISTEN: &str = "   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9034 1 0000000000000000 100 0 0 10 0\n";
    const TIME_WAIT: &str = "   1: 0100007F:9C40 0100007F:0CEA 06 00000000:00000000 03:00001728 00000000     0        0 0 3 0000000000000000\n";
    const V6: &str = "   4: 0000000000000000FFFF00000100007F:9C42 0000000000000000FFFF00000200007F:0CEA 01 00000000:00000000 02:00000123 00000000     0        0 9036 1 0000000000000000 20 0 0 10 -1\n";

    #[test]
    fn linux_6_18_rows_are_read_with_their_timer() {
        assert_eq!(
            parse(TIME_WAIT.as_bytes(), hand(100)),
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
            parse(LISTEN.as_bytes(), hand(100)),
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

    /// 127.0.0.1:40000 toward 127.0.0.2:3306, and the same over IPv6, as s390x writes them.
    #[test]
    fn a_big_endian_machine_writes_addresses_the_other_way_round() {
        let big = Hand {
            order: ByteOrder::Big,
            ..hand(100)
        };
        let four = TIME_WAIT.replace("0100007F", "7F000001");
        let six = V6.replace("FFFF00000100007F", "0000FFFF7F000001");
        let six = six.replace("FFFF00000200007F", "0000FFFF7F000002");
        for (row, same) in [(four, TIME_WAIT), (six, V6)] {
            assert_eq!(
                parse(row.as_bytes(), big),
                parse(same.as_bytes(), hand(100))
            );
        }
    }

    #[test]
    fn mapped_addresses_fold_into_ipv4_and_a_keepalive_timer_is_not_time_wait() {
        assert_eq!(
            parse(V6.as_bytes(), hand(100)),
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
            let left = parse(TIME_WAIT.as_bytes(), hand(hz))
                .unwrap()
                .time_wait_left;
            assert_eq!(left, Some(Duration::from_millis(milliseconds)), "{hz} Hz");
        }
    }

    /// Linux 2.6.32: an established socket, whose timer does not run.
    const OLD: &str = "   1: 330200C0:0050 590200C0:CF01 01 00000000:00000000 00:1AD7F29ABCA 00000000    33        0 391 1 ffff88 179 3 9 10 -1\n";

    /// What a file with this text has: its rows' local ports, and the rest.
    fn read(text: &[u8]) -> (Vec<u16>, Rest) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp");
        std::fs::write(&path, text).unwrap();
        let mut ports = Vec::new();
        let rest = rows(file::open(&path), hand(100), |socket| {
            ports.push(socket.local.port());
            ControlFlow::Continue(())
        });
        (ports, rest.unwrap().unwrap())
    }

    /// A table of which nothing was left out.
    const WHOLE: Rest = Rest {
        is_empty: false,
        is_table: true,
        malformed: 0,
        first_malformed: 0,
    };

    #[test]
    fn a_malformed_row_is_counted_and_the_rest_is_read() {
        let strange = TIME_WAIT.replace(" 06 ", " 63 ");
        let text = [HEADING, LISTEN, "nonsense\n", &strange, TIME_WAIT].concat();
        let rest = Rest {
            malformed: 2,
            first_malformed: 3,
            ..WHOLE
        };
        assert_eq!(read(text.as_bytes()), (vec![3306, 40000], rest));
    }

    #[test]
    fn what_stands_around_rows_is_no_malformed_row() {
        for (name, text) in [
            ("as it is", [HEADING, LISTEN, TIME_WAIT].concat()),
            ("no heading", [LISTEN, TIME_WAIT].concat()),
            (
                "blank lines",
                ["\n", HEADING, LISTEN, " \t\n", TIME_WAIT, "\n\n"].concat(),
            ),
            (
                "a heading in the middle",
                [HEADING, LISTEN, HEADING, TIME_WAIT].concat(),
            ),
            (
                "two tables, and how they were made",
                [
                    "$ cat /proc/net/tcp /proc/net/tcp6\n",
                    HEADING,
                    LISTEN,
                    HEADING,
                    TIME_WAIT,
                    "$ \n",
                ]
                .concat(),
            ),
            (
                "a terminal",
                [
                    "Last login: Mon\n[root@web ~]# cat tcp\n",
                    HEADING,
                    LISTEN,
                    TIME_WAIT,
                    "[root@web ~]# exit\n",
                ]
                .concat(),
            ),
            (
                "head",
                ["==> /proc/net/tcp <==\n", HEADING, LISTEN, TIME_WAIT].concat(),
            ),
            (
                "CRLF",
                [HEADING, LISTEN, TIME_WAIT].concat().replace('\n', "\r\n"),
            ),
            (
                "no newline at the end",
                [HEADING, LISTEN, TIME_WAIT.trim_end()].concat(),
            ),
        ] {
            assert_eq!(read(text.as_bytes()), (vec![3306, 40000], WHOLE), "{name}");
        }
    }

    #[test]
    fn a_timer_of_64_bits_is_read_where_it_does_not_run_and_refused_where_it_does() {
        let socket = parse(OLD.as_bytes(), hand(100)).unwrap();
        assert_eq!(
            (socket.state, socket.time_wait_left, socket.inode),
            (TcpState::Established, None, Some(391))
        );
        let endless = TIME_WAIT.replace("03:00001728", "03:1AD7F29ABCA");
        assert_eq!(parse(endless.as_bytes(), hand(100)), None);
        let wide = TIME_WAIT.replace("03:00001728", "03:0000000000001728");
        assert_eq!(
            parse(wide.as_bytes(), hand(100)),
            parse(TIME_WAIT.as_bytes(), hand(100))
        );
    }

    #[test]
    fn a_table_without_sockets_is_told_from_no_table() {
        assert_eq!(read(HEADING.as_bytes()), (vec![], WHOLE));
        assert_eq!(
            read(b""),
            (
                vec![],
                Rest {
                    is_empty: true,
                    ..Rest::default()
                }
            )
        );
        let error = b"cat: /proc/net/tcp: Permission denied\n";
        assert_eq!(read(error), (vec![], Rest::default()));
        let cut = Rest {
            malformed: 1,
            first_malformed: 1,
            ..WHOLE
        };
        assert_eq!(read(&HEADING.as_bytes()[..20]), (vec![], cut));
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp");
        let mut file = std::fs::File::create(&path).unwrap();
        // Zero bytes that take no room on the disk.
        file.set_len(1 << 19).unwrap();
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).unwrap();
        io::Write::write_all(&mut file, format!("\n{TIME_WAIT}").as_bytes()).unwrap();
        let mut line = Vec::new();
        let mut reader = BufReader::new(file::open(&path).unwrap());
        assert!(next_line(&mut reader, &mut line).unwrap());
        assert_eq!(line.len() as u64, LONGEST_LINE);
        assert!(line.capacity() as u64 <= 4 * LONGEST_LINE);
        assert!(next_line(&mut reader, &mut line).unwrap());
        assert_eq!(line, TIME_WAIT.as_bytes());
        for (length, why) in [
            (LONGEST_TABLE, "a line of more than 1 MiB"),
            (LONGEST_TABLE + 1, "larger than 4 GiB"),
        ] {
            file.set_len(0).unwrap();
            file.set_len(length).unwrap();
            let refused =
                rows(file::open(&path), hand(100), |_| ControlFlow::Continue(())).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }

    #[test]
    fn a_row_cut_before_the_end_of_its_columns_is_no_row_but_damaged() {
        for row in [LISTEN, TIME_WAIT, V6, OLD] {
            let (before_inode, _) = row
                .match_indices(' ')
                .rfind(|&(at, _)| columns(&row.as_bytes()[..at]).count() == 9)
                .unwrap();
            for length in 0..=before_inode {
                let cut = &row.as_bytes()[..length];
                assert_eq!(parse(cut, hand(100)), None, "{length}");
                if length > row.find(':').unwrap() {
                    assert_eq!(Other::of(cut), Other::Damaged, "{length}");
                }
            }
        }
    }

    /// Blanks that could part columns.
    fn blanks() -> impl Strategy<Value = String> {
        "[ \t]{1,5}"
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), hz: u64) {
            let _ = parse(&bytes, hand(hz));
            let _ = Other::of(&bytes);
        }

        #[test]
        fn no_file_makes_it_panic_or_loses_the_row_behind_it(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let (ports, rest) = read(&[&bytes, "\n".as_bytes(), TIME_WAIT.as_bytes()].concat());
            prop_assert_eq!(ports.last(), Some(&40000));
            prop_assert!(rest.is_table);
        }

        #[test]
        fn a_row_is_the_same_whatever_its_blanks(
            row in proptest::sample::select(vec![LISTEN, TIME_WAIT, V6, OLD]),
            parts in proptest::collection::vec(blanks(), 30),
            end in "[ \t]{0,3}(\r?\n)?",
        ) {
            let mut text = String::new();
            for (part, column) in parts.iter().zip(row.split_whitespace()) {
                text += part;
                text += column;
            }
            text += &end;
            prop_assert_eq!(parse(text.as_bytes(), hand(100)), parse(row.as_bytes(), hand(100)));
        }

        #[test]
        fn a_table_cut_anywhere_has_its_first_rows_and_at_most_one_malformed(
            length in 0..(HEADING.len() + LISTEN.len() + TIME_WAIT.len() + V6.len()),
        ) {
            let text = [HEADING, LISTEN, TIME_WAIT, V6].concat();
            let (ports, rest) = read(&text.as_bytes()[..length]);
            prop_assert_eq!(&[3306, 40000, 40002][..ports.len()], &ports[..]);
            prop_assert!(rest.malformed <= 1, "{:?}", rest);
        }

        #[test]
        fn no_change_of_one_byte_makes_it_panic(at in 0..TIME_WAIT.len(), byte: u8) {
            let mut line = TIME_WAIT.as_bytes().to_vec();
            line[at] = byte;
            let _ = parse(&line, hand(100));
        }
    }
}
