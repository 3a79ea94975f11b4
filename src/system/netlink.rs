//! Netlink framing: one request, its answers (include/uapi/linux/netlink.h).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `NLM_F_REQUEST | NLM_F_DUMP`: list everything that matches.
pub const DUMP: u16 = 0x301;
/// `NLM_F_REQUEST | NLM_F_ACK`: do it and say whether it worked.
pub const ACKNOWLEDGED: u16 = 0x005;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL`.
pub const CREATE: u16 = 0x605;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
const HEADER: usize = 16;

/// The kernel fills at most 32 KiB a message for a dump; a larger buffer gains nothing.
const BUFFER: usize = 32 * 1024;

/// A socket to one netlink family of the calling thread's network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// Why a request has no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The kernel, or the system call, says no.
    Errno(Errno),
    /// The table changed in a way that made the dump inconsistent (`NLM_F_DUMP_INTR`).
    Interrupted,
    /// A message was longer than the buffer or than its own header says.
    Truncated,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Errno(errno) => write!(f, "{} (errno {})", errno.desc(), *errno as i32),
            Self::Interrupted => f.write_str("the table changed while it was dumped"),
            Self::Truncated => f.write_str("a netlink message was truncated"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl Netlink {
    /// Opens a socket to `protocol`.
    ///
    /// # Errors
    /// Whatever socket() says: `EPROTONOSUPPORT` where the kernel lacks the family.
    pub fn open(protocol: SockProtocol) -> Result<Self, Failure> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER],
        })
    }

    /// Sends one request of `kind` and hands the payload of every answer to `answer`.
    ///
    /// # Errors
    /// When the kernel refuses it, or the answer is incomplete: then some answers may already have
    /// been handed over.
    pub fn request(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        mut answer: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let mut message = Vec::with_capacity(HEADER + payload.len());
        let length = u32::try_from(HEADER + payload.len()).map_err(|_| Failure::Truncated)?;
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // Sequence and port: one request at a time needs neither.
        message.extend(payload);
        // Without an address it is for the kernel, and the rights of who opened the socket count.
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;

        let mut interrupted = false;
        loop {
            // MSG_TRUNC: the true length, even where the buffer is too short.
            let length = match recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_TRUNC,
            ) {
                Err(Errno::EINTR) => continue,
                length => length?,
            };
            let messages = self.buffer.get(..length).ok_or(Failure::Truncated)?;
            match read(messages, &mut interrupted, &mut answer)? {
                Read::Done if interrupted => return Err(Failure::Interrupted),
                Read::Done => return Ok(()),
                Read::More => {}
            }
        }
    }
}

/// Whether an answer goes on after the messages that were read.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    More,
    Done,
}

/// Hands the payload of each message in `rest` to `answer`, up to the one that ends the answer;
/// notes whether any of them says that the dump was disturbed.
fn read(
    mut rest: &[u8],
    interrupted: &mut bool,
    mut answer: impl FnMut(&[u8]),
) -> Result<Read, Failure> {
    while !rest.is_empty() {
        let message = Message::split(&mut rest).ok_or(Failure::Truncated)?;
        *interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            // A dump that ended early says why here, as a negated errno.
            NLMSG_DONE | NLMSG_ERROR => return message.errno().map(|()| Read::Done),
            _ => answer(message.payload),
        }
    }
    Ok(Read::More)
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the first message off `bytes`; `None` when it is cut short.
    fn split(bytes: &mut &'a [u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let length = usize::try_from(u32_at(header, 0)?).ok()?;
        let payload = bytes.get(HEADER..length)?;
        let message = Self {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            payload,
        };
        *bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    }

    /// The result that an NLMSG_ERROR or NLMSG_DONE carries: zero is success.
    fn errno(&self) -> Result<(), Failure> {
        match u32_at(self.payload, 0).ok_or(Failure::Truncated)? {
            0 => Ok(()),
            negated => Err(Errno::from_raw(negated.wrapping_neg().cast_signed()).into()),
        }
    }
}

/// The two bytes at `offset` in the machine's order.
#[must_use]
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The four bytes at `offset` in the machine's order.
#[must_use]
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Splits attributes (`struct nlattr`) into kind and value, up to the first that is cut short.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` say how to read the value, not what it is.
    const KIND: u16 = 0x3fff;
    const HEADER: usize = 4;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & KIND;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes
            .get(length.next_multiple_of(HEADER)..)
            .unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of `kind`.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Asks again where the answer was disturbed, a few times: a table that changes all the while is no
/// reason to hang.
pub(super) fn retried<T>(mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    const TRIES: usize = 3;
    let mut last = ask();
    for _ in 1..TRIES {
        match last {
            Err(Failure::Interrupted | Failure::Truncated) => last = ask(),
            Err(Failure::Errno(Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN | Errno::EINTR)) => {
                last = ask();
            }
            other => return other,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_answer_is_asked_for_again_and_a_refusal_is_not() {
        let asked = |answers: &[Result<u8, Failure>]| {
            let mut left = answers.iter();
            let last = retried(|| *left.next().expect("three tries at most"));
            (last, answers.len() - left.len())
        };
        let (busy, no) = (Failure::Errno(Errno::ENOBUFS), Failure::Errno(Errno::EPERM));
        assert_eq!(asked(&[Ok(1)]), (Ok(1), 1));
        assert_eq!(asked(&[Err(Failure::Interrupted), Ok(2)]), (Ok(2), 2));
        assert_eq!(
            asked(&[Err(Failure::Truncated), Err(busy), Err(busy)]),
            (Err(busy), 3)
        );
        assert_eq!(asked(&[Err(no)]), (Err(no), 1));
    }

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn messages_are_split_at_four_byte_bounds() {
        let bytes = [message(20, b"abcde"), vec![0; 3], message(21, b"")].concat();
        let mut rest = bytes.as_slice();
        let first = Message::split(&mut rest).unwrap();
        assert_eq!((first.kind, first.payload), (20, b"abcde".as_slice()));
        let second = Message::split(&mut rest).unwrap();
        assert_eq!(
            (second.kind, second.payload, rest),
            (21, [].as_slice(), [].as_slice())
        );
    }

    #[test]
    fn a_message_cut_at_any_length_is_refused() {
        let bytes = message(20, b"abcd");
        for length in 0..bytes.len() {
            assert!(Message::split(&mut &bytes[..length]).is_none(), "{length}");
        }
        // A length below the header's own.
        assert!(
            Message::split(
                &mut [4_u32.to_ne_bytes(), [0; 4], [0; 4], [0; 4]]
                    .concat()
                    .as_slice()
            )
            .is_none()
        );
    }

    #[test]
    fn an_error_message_carries_a_negated_errno() {
        let payload = (-libc_eperm()).to_ne_bytes();
        let bytes = message(NLMSG_ERROR, &payload);
        let refused = Message::split(&mut bytes.as_slice()).unwrap().errno();
        assert_eq!(refused, Err(Failure::Errno(Errno::EPERM)));
        let bytes = message(NLMSG_DONE, &(-2_i32).to_ne_bytes());
        let ended = Message::split(&mut bytes.as_slice()).unwrap().errno();
        assert_eq!(ended, Err(Failure::Errno(Errno::ENOENT)));
        let bytes = message(NLMSG_ERROR, &[0; 4]);
        assert_eq!(
            Message::split(&mut bytes.as_slice()).unwrap().errno(),
            Ok(())
        );
    }

    #[test]
    fn a_disturbance_is_remembered_until_the_end_of_the_answer() {
        let mut disturbed = message(20, b"abcd");
        disturbed[6..8].copy_from_slice(&NLM_F_DUMP_INTR.to_ne_bytes());
        let first = [message(20, b"1111"), disturbed].concat();
        let last = [message(20, b"2222"), message(NLMSG_DONE, &[0; 4])].concat();
        let mut heard = Vec::new();
        let mut interrupted = false;
        let mut hear = |payload: &[u8]| heard.push(payload.to_vec());
        assert_eq!(read(&first, &mut interrupted, &mut hear), Ok(Read::More));
        assert!(interrupted);
        assert_eq!(read(&last, &mut interrupted, &mut hear), Ok(Read::Done));
        assert!(interrupted);
        assert_eq!(heard, [b"1111", b"abcd", b"2222"]);
        let cut = &first[..first.len() - 1];
        assert_eq!(read(cut, &mut interrupted, |_| {}), Err(Failure::Truncated));
        let refused = message(NLMSG_ERROR, &(-libc_eperm()).to_ne_bytes());
        assert_eq!(
            read(&refused, &mut interrupted, |_| {}),
            Err(Failure::Errno(Errno::EPERM))
        );
    }

    fn libc_eperm() -> i32 {
        Errno::EPERM as i32
    }
}
