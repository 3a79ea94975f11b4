//! How a client proves that it knows a password, plugin by plugin.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use mysql_common::crypto::rsa::{GetRandom, Pkcs1OaepPadding, PublicKey};
use mysql_common::scramble::{create_response_for_ed25519, scramble_native, scramble_sha256};
use num_bigint::BigUint;
use ring::pbkdf2;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::Ed25519KeyPair;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::cause::Cause;
use super::wire::Wire;

/// A plugin that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    /// SHA-1 of the password with the server's challenge.
    Native,
    /// SHA-256 likewise, and the password itself where the server has not seen it for a while.
    CachingSha2,
    /// The password itself, under TLS or the server's RSA key.
    Sha256,
    /// MariaDB: a signature of the challenge.
    Ed25519,
    /// MariaDB 11.6 and later: likewise, with a key that takes time to make.
    Parsec,
}

const ALL: [(Plugin, &str); 5] = [
    (Plugin::Native, "mysql_native_password"),
    (Plugin::CachingSha2, "caching_sha2_password"),
    (Plugin::Sha256, "sha256_password"),
    (Plugin::Ed25519, "client_ed25519"),
    (Plugin::Parsec, "parsec"),
];

/// A challenge of the plugins by hash, and of those by signature.
const NONCE: usize = 20;
const LONG_NONCE: usize = 32;

/// `fast_auth_success`, `perform_full_authentication` and `request_public_key` of
/// `caching_sha2_password`; `sha256_password` asks for the key by another number.
const FAST_AUTH_OK: u8 = 3;
const FULL_AUTH: u8 = 4;
const REQUEST_PUBLIC_KEY: u8 = 2;
const REQUEST_PUBLIC_KEY_SHA256: u8 = 1;

impl Plugin {
    /// # Errors
    /// Where it is not spoken.
    pub fn named(name: &[u8]) -> Result<Self, Cause> {
        ALL.iter()
            .find(|(_, known)| known.as_bytes() == name)
            .map(|(plugin, _)| *plugin)
            .ok_or_else(|| Cause::Plugin(String::from_utf8_lossy(name).into_owned()))
    }

    /// What `AuthSwitchRequest` calls it.
    pub fn name(self) -> &'static str {
        ALL.iter()
            .find(|(plugin, _)| *plugin == self)
            .map_or("", |(_, name)| name)
    }

    /// The first answer to the challenge `nonce`, as much as can be said at once.
    pub fn answer(self, password: &str, nonce: &[u8], encrypted: bool) -> Vec<u8> {
        let password = password.as_bytes();
        let nonce = |length: usize| {
            // Servers end it with a zero or do not, and some challenges end in one.
            let mut nonce = nonce.to_vec();
            nonce.resize(length, 0);
            nonce
        };
        match self {
            Self::Native => scramble_native(&nonce(NONCE), password)
                .filter(|_| !password.is_empty())
                .map_or_else(Vec::new, Into::into),
            Self::CachingSha2 => scramble_sha256(&nonce(NONCE), password)
                .filter(|_| !password.is_empty())
                .map_or_else(|| vec![0], Into::into),
            Self::Sha256 if encrypted || password.is_empty() => terminated(password),
            Self::Sha256 => vec![REQUEST_PUBLIC_KEY_SHA256],
            Self::Ed25519 => create_response_for_ed25519(password, &nonce(LONG_NONCE)).into(),
            // An empty packet asks for the salt.
            Self::Parsec => Vec::new(),
        }
    }

    /// Goes on after the server has answered with `more`, as each does once at most: whether that
    /// sent the password itself under a key that the server showed.
    ///
    /// # Errors
    /// Where the password cannot be sent, or the server asks for something else.
    pub fn go_on(
        self,
        wire: &mut Wire,
        more: &[u8],
        password: &str,
        nonce: &[u8],
    ) -> Result<bool, Cause> {
        match (self, more) {
            (Self::CachingSha2, [FAST_AUTH_OK]) => Ok(false),
            (Self::CachingSha2, [FULL_AUTH]) if wire.is_encrypted() => {
                wire.write(&terminated(password.as_bytes()))?;
                Ok(false)
            }
            (Self::CachingSha2, [FULL_AUTH]) => {
                wire.write(&[REQUEST_PUBLIC_KEY])?;
                match wire.read()?.as_slice() {
                    [1, key @ ..] => wire.write(&under_key(key, password, nonce)?)?,
                    _ => return Err(Cause::NotMysql),
                }
                Ok(!password.is_empty())
            }
            (Self::Sha256, key) if !wire.is_encrypted() => {
                wire.write(&under_key(key, password, nonce)?)?;
                Ok(!password.is_empty())
            }
            (Self::Parsec, salt) => {
                wire.write(&signed(salt, password, nonce)?)?;
                Ok(false)
            }
            _ => Err(Cause::NotMysql),
        }
    }
}

fn terminated(password: &[u8]) -> Vec<u8> {
    [password, &[0]].concat()
}

/// The password under the server's RSA key.
fn under_key(pem: &[u8], password: &str, nonce: &[u8]) -> Result<Vec<u8>, Cause> {
    /// Of OAEP with SHA-1: two hashes and two bytes.
    const PADDING: usize = 42;
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .ok()
        .and_then(|der| rsa_key(&der))
        .ok_or_else(|| {
            Cause::Unsendable("the RSA key that the server shows for it is malformed".into())
        })?;
    if key.is_weak {
        return Err(Cause::Unsendable(format!(
            "the RSA key that the server shows for it is weak, with {} bits or such an exponent: \
             whoever listens could read it",
            key.octets * 8
        )));
    }
    let mut clear = terminated(password.as_bytes());
    let room = key.octets.saturating_sub(PADDING);
    if clear.len() > room {
        return Err(Cause::Unsendable(format!(
            "it has {} bytes, and under the server's RSA key of {} bits there is room for {}",
            password.len(),
            key.octets * 8,
            room.saturating_sub(1)
        )));
    }
    let mut challenge = nonce.to_vec();
    challenge.resize(NONCE, 0);
    for (byte, salt) in clear.iter_mut().zip(challenge.iter().cycle()) {
        *byte ^= salt;
    }
    Ok(key
        .key
        .encrypt_block(clear, Pkcs1OaepPadding::new(GetRandom)))
}

struct RsaKey {
    key: PublicKey,
    /// Of the modulus.
    octets: usize,
    /// Whether it hides nothing: too short, or without a secret to it.
    is_weak: bool,
}

/// The RSA key of a `SubjectPublicKeyInfo` (RFC 5280, 4.1; RFC 8017, A.1.1). mysql_common reads one
/// too, and panics where it is malformed.
fn rsa_key(der: &[u8]) -> Option<RsaKey> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const INTEGER: u8 = 0x02;
    /// Of the modulus, in octets: what OpenSSL makes and takes, so that the arithmetic ends soon.
    const USUAL: RangeInclusive<usize> = 64..=2048;
    /// Shorter ones have been factored (829 bits in 2020); servers make 2,048 bits.
    const SHORTEST: usize = 128;
    /// Of the exponent, which is 65,537 nearly always.
    const LONGEST_EXPONENT: usize = 8;
    let (info, _) = element(der, SEQUENCE)?;
    let (_algorithm, rest) = element(info, SEQUENCE)?;
    let (bits, _) = element(rest, BIT_STRING)?;
    let (numbers, _) = element(bits.strip_prefix(&[0])?, SEQUENCE)?;
    let (modulus, rest) = element(numbers, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    let exponent = exponent.strip_prefix(&[0]).unwrap_or(exponent);
    // mysql_common takes the modulus for an octet shorter where its first one is 1.
    let is_whole = modulus.first()? & 0x80 != 0 && modulus.last()? & 1 == 1;
    let is_usual =
        USUAL.contains(&modulus.len()) && (1..=LONGEST_EXPONENT).contains(&exponent.len());
    let exponent = BigUint::from_bytes_be(exponent);
    (is_whole && is_usual).then(|| RsaKey {
        is_weak: modulus.len() < SHORTEST || exponent < BigUint::from(3_u8) || !exponent.bit(0),
        key: PublicKey::new(BigUint::from_bytes_be(modulus), exponent),
        octets: modulus.len(),
    })
}

/// The content of the DER element of this `kind` that `bytes` begin with, and what is behind it.
fn element(bytes: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    if found != kind {
        return None;
    }
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The answer of `parsec` to its salt: a challenge of the client's own, and a signature of both by
/// a key made of the password
/// (<https://mariadb.com/kb/en/authentication-plugin-parsec/>).
fn signed(salt: &[u8], password: &str, nonce: &[u8]) -> Result<Vec<u8>, Cause> {
    /// PBKDF2, the only way there is.
    const PBKDF2: u8 = b'P';
    /// 1,024 rounds are doubled so often. The server's own default is 0; with 10 it takes a second.
    const MOST_DOUBLINGS: u8 = 10;
    let &[PBKDF2, doublings @ 0..=MOST_DOUBLINGS, ref salt @ ..] = salt else {
        return Err(Cause::NotMysql);
    };
    let rounds = NonZeroU32::new(1024 << doublings).ok_or(Cause::NotMysql)?;
    let mut seed = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA512,
        rounds,
        salt,
        password.as_bytes(),
        &mut seed,
    );
    let unsigned = || Cause::Other("this machine has no random numbers".into());
    let mut message = [0; 2 * LONG_NONCE];
    let (theirs, ours) = message.split_at_mut(LONG_NONCE);
    for (byte, given) in theirs.iter_mut().zip(nonce) {
        *byte = *given;
    }
    SystemRandom::new().fill(ours).map_err(|_| unsigned())?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| unsigned())?;
    let signature = pair.sign(&message);
    Ok([&message[LONG_NONCE..], signature.as_ref()].concat())
}
