use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use serde::Serialize;

use super::cause::TlsTrouble;
use crate::refusal::Refusal;
use crate::system::file;
use crate::words;

/// What the server's certificate must show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum TlsMode {
    /// Any certificate: encrypted, with whoever answers
    Required,
    /// One that an authority of --tls-ca has signed
    VerifyCa,
    /// One for the server's name, signed by an authority of --tls-ca or one that browsers trust
    #[default]
    VerifyFull,
}

/// How a user wants TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsWish {
    /// What the server's certificate must show.
    pub mode: TlsMode,
    /// A PEM file with the authority to trust instead of those that browsers trust.
    pub authority: Option<PathBuf>,
    /// PEM files with the client's own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How to speak TLS with a server.
#[derive(Clone)]
pub(super) struct Tls {
    pub config: Arc<ClientConfig>,
    /// The name its certificate must bear.
    pub name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS with the server called `host`.
    ///
    /// # Errors
    /// When a file does not hold what it should, or `host` can be in no certificate.
    pub fn new(host: &str, wish: &TlsWish) -> Result<Self> {
        let mut trusted = RootCertStore::empty();
        match &wish.authority {
            None => trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in certificates(path, &AUTHORITY)? {
                    trusted
                        .add(certificate)
                        .map_err(|error| refusal(path, &error, &AUTHORITY))?;
                }
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Refusal::new(
                format!("{host:?} is no name that a certificate can bear"),
                "give the server's DNS name or IP address with --host",
            )
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match wish.mode {
            TlsMode::VerifyFull => builder.with_root_certificates(trusted),
            lenient => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Lenient::new(
                    lenient, trusted, provider,
                )?)),
        };
        let mut config = match &wish.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate, &IDENTITY)?;
                let bytes = file::bytes_named_by_user(key)
                    .map_err(|error| refusal(key, &error, &IDENTITY))?;
                let secret = PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|_| refusal(key, &"it holds no private key", &IDENTITY))?;
                builder
                    .with_client_auth_cert(chain, secret)
                    .map_err(|error| refusal(key, &error, &IDENTITY))?
            }
        };
        // The clients of MySQL resume no session of another connection, and each pays for its own.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

/// Accepts a certificate for another name, or any at all. That who shows it has its key is seen to
/// all the same.
#[derive(Debug)]
struct Lenient {
    /// `None` where any certificate will do.
    issuer: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Lenient {
    fn new(mode: TlsMode, trusted: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self> {
        let algorithms = provider.signature_verification_algorithms;
        let issuer = match mode {
            TlsMode::Required => None,
            TlsMode::VerifyCa | TlsMode::VerifyFull => Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(trusted), provider).build()?,
            ),
        };
        Ok(Self { issuer, algorithms })
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(issuer) = &self.issuer else {
            return Ok(ServerCertVerified::assertion());
        };
        match issuer.verify_server_cert(certificate, chain, name, stapled, now) {
            // The name comes last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why TLS did not come about, in a sentence that does not grow with the certificate.
pub(super) fn trouble(error: &Error) -> TlsTrouble {
    /// Of the names in a certificate; one of a provider has a hundred.
    const SHOWN: usize = 3;
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected,
            presented,
        }) => {
            // `DnsName("db.example")`, `IpAddress(192.0.2.1)`
            let bare = |name: &String| {
                let inner = name
                    .split_once('(')
                    .map_or(name.as_str(), |(_, inner)| inner);
                inner.trim_matches(['(', ')', '"']).to_owned()
            };
            let names: Vec<_> = presented.iter().take(SHOWN).map(bare).collect();
            let more = match presented.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let expected = expected.to_str();
            if names.is_empty() {
                return TlsTrouble::NoName(format!(
                    "the certificate is for no name at all, not for {expected}"
                ));
            }
            TlsTrouble::WrongName(format!(
                "the certificate is for {}{more}, not for {expected}",
                names.join(", ")
            ))
        }
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => TlsTrouble::UnknownIssuer(error.to_string()),
        // What webpki does not know is a certificate that signs itself, as MariaDB makes one.
        Error::InvalidCertificate(CertificateError::Other(_)) => {
            TlsTrouble::UnknownIssuer(error.to_string())
        }
        Error::AlertReceived(alert) => of_the_server(*alert),
        Error::PeerIncompatible(_) => TlsTrouble::NothingInCommon(error.to_string()),
        _ => TlsTrouble::Other(error.to_string()),
    }
}

/// What the server means by this alert (RFC 8446, 6.2).
fn of_the_server(alert: AlertDescription) -> TlsTrouble {
    use AlertDescription as Alert;
    let said = format!("the server's alert is {alert:?}");
    match alert {
        Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            TlsTrouble::NothingInCommon(said)
        }
        Alert::UnknownCA => TlsTrouble::ClientUnknown(said),
        Alert::CertificateRequired | Alert::NoCertificate => {
            TlsTrouble::ClientCertificateRequired(said)
        }
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::AccessDenied
        | Alert::DecryptError => TlsTrouble::ClientCertificate(said),
        _ => TlsTrouble::Other(said),
    }
}

/// A file that is named for TLS: what is in it, and how it is named.
struct Named {
    what: &'static str,
    hint: &'static str,
}

const AUTHORITY: Named = Named {
    what: "the authority",
    hint: "--tls-ca takes a PEM file with the certificate that signed the server's",
};
const IDENTITY: Named = Named {
    what: "this client's certificate",
    hint: "--tls-cert takes a PEM file with this client's certificate, --tls-key one with its key, \
           which belongs to it",
};

fn certificates(path: &Path, named: &Named) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = file::bytes_named_by_user(path).map_err(|error| refusal(path, &error, named))?;
    let read = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refusal(path, &error, named))?;
    if read.is_empty() {
        return Err(refusal(path, &"it holds no certificate", named).into());
    }
    Ok(read)
}

fn refusal(path: &Path, why: &dyn fmt::Display, named: &Named) -> Refusal {
    let Named { what, hint } = named;
    Refusal::new(
        format!("reading {what} from {}: {why}", words::path(path)),
        *hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_for_many_names_is_told_by_the_first_few() {
        let told = |names: &[String]| {
            let wrong = CertificateError::NotValidForNameContext {
                expected: ServerName::try_from("db.example").unwrap(),
                presented: names.to_vec(),
            };
            match trouble(&Error::InvalidCertificate(wrong)) {
                TlsTrouble::WrongName(text) | TlsTrouble::NoName(text) => text,
                other => panic!("{other:?}"),
            }
        };
        let names: Vec<_> = (0..62)
            .map(|name| format!("DnsName(\"{name}.b\")"))
            .collect();
        assert_eq!(
            told(&names),
            "the certificate is for 0.b, 1.b, 2.b and 59 more, not for db.example"
        );
        assert_eq!(
            told(&[]),
            "the certificate is for no name at all, not for db.example"
        );
    }

    #[test]
    fn what_the_server_does_not_like_is_told_by_its_alert() {
        let said = |alert: AlertDescription| format!("the server's alert is {alert:?}");
        for (alert, kind) in [
            (
                AlertDescription::UnknownCA,
                TlsTrouble::ClientUnknown as fn(String) -> TlsTrouble,
            ),
            (
                AlertDescription::CertificateExpired,
                TlsTrouble::ClientCertificate,
            ),
            (
                AlertDescription::BadCertificate,
                TlsTrouble::ClientCertificate,
            ),
            (
                AlertDescription::CertificateRequired,
                TlsTrouble::ClientCertificateRequired,
            ),
            (
                AlertDescription::ProtocolVersion,
                TlsTrouble::NothingInCommon,
            ),
            (
                AlertDescription::HandshakeFailure,
                TlsTrouble::NothingInCommon,
            ),
            (AlertDescription::InternalError, TlsTrouble::Other),
        ] {
            assert_eq!(trouble(&Error::AlertReceived(alert)), kind(said(alert)));
        }
    }
}
