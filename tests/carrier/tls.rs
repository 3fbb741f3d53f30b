//! A TLS line to a server that has none: whatever is sent to it is decrypted and passed on.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::server::{Server, link};
use super::{command, try_command};

struct Line {
    port: u16,
    folder: PathBuf,
}

impl Line {
    /// With certificates `ca.pem`, `client.pem` and `client.key` for its clients.
    async fn to(server: &Server, ask_for_certificate: bool) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |purpose: ExtendedKeyUsagePurpose| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            (params.signed_by(&key, &ca).unwrap(), key)
        };
        let (certificate, key) = issue(ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = issue(ExtendedKeyUsagePurpose::ClientAuth);

        let folder = server.socket().with_file_name(format!("tls-{ask_for_certificate}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(folder.join("client.pem"), client.pem()).unwrap();
        std::fs::write(folder.join("client.key"), client_key.serialize_pem()).unwrap();

        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if ask_for_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], secret).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = server.port;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut plain = TcpStream::connect(("127.0.0.1", target)).await?;
                    let mut secret = acceptor.accept(stream).await?;
                    tokio::io::copy_bidirectional(&mut secret, &mut plain).await
                });
            }
        });
        Self { port, folder }
    }

    fn url(&self, host: &str, options: &[(&str, &str)]) -> String {
        let options: Vec<String> = options
            .iter()
            .map(|(name, file)| match file.contains('.') {
                true => format!("{name}={}", self.folder.join(file).display()),
                false => format!("{name}={file}"),
            })
            .collect();
        format!("rediss://{host}:{}?{}", self.port, options.join("&"))
    }
}

#[tokio::test]
async fn a_certificate_of_a_named_authority_is_trusted() {
    let server = Server::start();
    let line = Line::to(&server, false).await;
    command(&link(&line.url("localhost", &[("ssl_ca_certs", "ca.pem")])), &["PING"]).await;
    command(&link(&line.url("localhost", &[("ssl_cert_reqs", "none")])), &["PING"]).await;
}

#[tokio::test]
async fn a_certificate_of_nobody_known_or_for_another_host_is_not() {
    let server = Server::start();
    let line = Line::to(&server, false).await;
    for url in [line.url("localhost", &[]), line.url("127.0.0.1", &[("ssl_ca_certs", "ca.pem")])] {
        let error = try_command(&link(&url), &["PING"]).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_asked_for() {
    let server = Server::start();
    let line = Line::to(&server, true).await;
    let shown = [("ssl_ca_certs", "ca.pem"), ("ssl_certfile", "client.pem"), ("ssl_keyfile", "client.key")];
    command(&link(&line.url("localhost", &shown)), &["PING"]).await;
    assert!(try_command(&link(&line.url("localhost", &shown[..1])), &["PING"]).await.is_err());
}

#[tokio::test]
async fn who_speaks_tls_and_who_does_not_is_told() {
    let server = Server::start();
    let line = Line::to(&server, false).await;
    let plain = format!("rediss://127.0.0.1:{}?ssl_cert_reqs=none", server.port);
    for (url, told) in [(plain, "redis for rediss"), (format!("redis://127.0.0.1:{}", line.port), "rediss for redis")] {
        let error = try_command(&link(&url), &["PING"]).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}
