use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::refusal::Refusal;
use crate::system::file;

/// How to speak TLS with a server: whom to trust, and the name its certificate must bear.
#[derive(Clone)]
pub(super) struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
    /// The same for the mysql crate.
    pub authority: Option<PathBuf>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS with the server called `host`, whose certificate must come from an authority in the PEM
    /// file `authority`, or from one that browsers trust.
    ///
    /// # Errors
    /// When the file holds no certificate, or `host` can be in none.
    pub fn new(host: &str, authority: Option<&Path>) -> Result<Self> {
        let mut trusted = RootCertStore::empty();
        match authority {
            None => trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                for certificate in certificates(path)? {
                    trusted
                        .add(certificate)
                        .map_err(|error| refusal(path, &error))?;
                }
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Refusal::new(
                format!("{host:?} is no name that a certificate can bear"),
                "give the server's DNS name or IP address with --host",
            )
        })?;
        let config = ClientConfig::builder()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            name,
            authority: authority.map(Path::to_owned),
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = file::bytes_named_by_user(path).map_err(|error| refusal(path, &error))?;
    let read = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refusal(path, &error))?;
    if read.is_empty() {
        return Err(refusal(path, &"it holds no certificate").into());
    }
    Ok(read)
}

fn refusal(path: &Path, why: &dyn fmt::Display) -> Refusal {
    Refusal::new(
        format!("reading the authority from {}: {why}", path.display()),
        "--tls-ca takes a PEM file with the certificate that signed the server's",
    )
}
