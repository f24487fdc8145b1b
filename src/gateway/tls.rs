//! Certificates of the listeners: read from PEM files at the start, and again when the process is told to.
//!
//! `server` shakes hands with what is here. A connection keeps the certificate that it began with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig, crypto};

use crate::config;

/// What listeners identify themselves with. Both planes share one.
pub struct Tls(RwLock<TlsAcceptor>);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("{}: {}", .file.display(), in_words(.source))]
    File {
        /// Its name.
        file: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file has no certificate in it.
    #[error("{}: there is no certificate in it (a section `BEGIN CERTIFICATE`)", .0.display())]
    NoCertificate(PathBuf),
    /// The two do not belong together, or are of a kind that is not known.
    #[error("{} and {} cannot be used together: {source}", .cert.display(), .key.display())]
    Pair {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with its key.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
}

/// What is wrong with a PEM file, for whoever wrote it.
fn in_words(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => {
            "there is no private key in it (a section `BEGIN PRIVATE KEY`)".to_owned()
        }
        pem::Error::Io(error) => error.to_string(),
        other => format!("not a sound PEM file: {other}"),
    }
}

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn load(files: &config::Tls) -> Result<Self, TlsError> {
        read(files).map(|acceptor| Self(RwLock::new(acceptor)))
    }

    /// Reads them again, for connections from now on. If that fails, what was there stays.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn reload(&self, files: &config::Tls) -> Result<(), TlsError> {
        let fresh = read(files)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What shakes hands with the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(files: &config::Tls) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| in_file(&files.key, source))?;
    let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
    // Named, and not taken from the process: a library beside us may have put another one there.
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let sections = CertificateDer::pem_file_iter(file).map_err(|source| in_file(file, source))?;
    let chain = sections.collect::<Result<Vec<_>, _>>().map_err(|source| in_file(file, source))?;
    if chain.is_empty() { Err(TlsError::NoCertificate(file.to_owned())) } else { Ok(chain) }
}

fn in_file(file: &Path, source: pem::Error) -> TlsError {
    TlsError::File { file: file.to_owned(), source }
}
