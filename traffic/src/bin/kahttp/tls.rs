//! TLS: the server's certificate, and a client that trusts everybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};

/// Where the server's certificate comes from.
#[derive(Debug)]
pub enum Identity {
    Files { certificate: PathBuf, key: PathBuf },
    MadeAtStart,
}

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What the names in a certificate made at start are, beside the host's own.
const NAMES: [&str; 4] = ["localhost", "kahttp.localdomain", "127.0.0.1", "::1"];

/// A client need not have a certificate; if it has one, that has to follow
/// from the server's own.
pub fn server_config(identity: &Identity, host_name: &str) -> anyhow::Result<ServerConfig> {
    let (chain, key) = match identity {
        Identity::Files { certificate, key } => read(certificate, key)?,
        Identity::MadeAtStart => make(host_name)?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in &chain {
        roots.add(certificate.clone()).context("use the certificate for clients")?;
    }
    let provider = provider();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .context("use the certificate for clients")?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .context("use the certificate")?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(config)
}

/// Trusts every server, since the traffic is what is tested.
pub fn client_config(http2: bool) -> anyhow::Result<ClientConfig> {
    let provider = provider();
    let verifier = Arc::new(Trusting(provider.clone()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![if http2 { HTTP2 } else { HTTP1 }.to_vec()];
    Ok(config)
}

/// Whether a handshake agreed on HTTP/2.
pub fn is_http2(protocol: Option<&[u8]>) -> bool {
    protocol == Some(HTTP2)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(certificate: &Path, key: &Path) -> anyhow::Result<ChainAndKey> {
    let context = || format!("read certificate {}", certificate.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(context)?;
    ensure!(!chain.is_empty(), "{}: there is none", context());
    let key =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("read key {}", key.display()))?;
    Ok((chain, key))
}

fn make(host_name: &str) -> anyhow::Result<ChainAndKey> {
    let names = NAMES.into_iter().chain([host_name]).map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names.collect::<Vec<_>>())
        .context("make a certificate")?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
