use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::etcd_server::Tls;
use super::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "authority of a test");
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// Certificate and key for somebody on loopback.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Why a place does not open; it must not keep anybody waiting.
async fn refusal(options: &Options) -> String {
    let asked = Instant::now();
    let error = open(options).await.err().expect("it must be refused").to_string();
    eprintln!("refused after {:?}: {error}", asked.elapsed());
    assert!(asked.elapsed().as_secs() < 5);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_certificates_and_passwords_takes_the_right_ones_and_refuses_others_at_once() {
    if !etcd_server::is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (cert, key) = authority.sign("root");
    let tls = Tls {
        ca: file("ca.pem", &authority.pem),
        cert: file("cert.pem", &cert),
        key: file("key.pem", &key),
    };
    let etcd = Etcd::start_with(1, Some(&tls), &[]);
    let (cert, key) = authority.sign("somebody");
    let place = EtcdPlace {
        urls: etcd.urls(),
        prefix: "/clade/a".to_owned(),
        ca: Some(tls.ca.clone()),
        identity: Some((file("own.pem", &cert), file("own.key", &key))),
        user: None,
    };
    let options =
        |place: &EtcdPlace| Options { place: Place::Etcd(place.clone()), ..in_etcd(vec![], "") };
    lead(&options(&place)).await.resign().await;

    let other = Authority::new();
    let wrong = EtcdPlace { ca: Some(file("other-ca.pem", &other.pem)), ..place.clone() };
    let error = refusal(&options(&wrong)).await;
    assert!(error.contains("--etcd-ca"), "{error}");
    let (cert, key) = other.sign("stranger");
    let identity = Some((file("stranger.pem", &cert), file("stranger.key", &key)));
    let wrong = EtcdPlace { identity, ..place.clone() };
    let error = refusal(&options(&wrong)).await;
    assert!(error.contains("--etcd-cert"), "{error}");
    let wrong = EtcdPlace { identity: None, ..place.clone() };
    let error = refusal(&options(&wrong)).await;
    assert!(error.contains("--etcd-cert"), "{error}");

    let user = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
    let early = EtcdPlace { user: user("clade", "secret"), ..place.clone() };
    let error = refusal(&options(&early)).await;
    assert!(error.contains("leave out --etcd-user"), "{error}");

    etcd.ctl(&["user", "add", "root:rooted"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["role", "add", "clade"]);
    etcd.ctl(&["role", "grant-permission", "clade", "--prefix=true", "readwrite", "/clade/a/"]);
    etcd.ctl(&["user", "add", "clade:secret"]);
    etcd.ctl(&["user", "grant-role", "clade", "clade"]);
    etcd.ctl(&["auth", "enable"]);

    let right = EtcdPlace { user: user("clade", "secret"), ..place.clone() };
    let mut led = lead(&options(&right)).await;
    led.save(&[put("run/a", "1")]).await.unwrap();
    assert_eq!(led.load().await.unwrap(), rows([("run/a", "1")]));
    led.resign().await;
    let wrong = EtcdPlace { user: user("clade", "guess"), ..place.clone() };
    let error = refusal(&options(&wrong)).await;
    assert!(error.contains("--etcd-password-file"), "{error}");
    let wrong = EtcdPlace { prefix: "/clade/b".to_owned(), ..right };
    let error = refusal(&options(&wrong)).await;
    assert!(error.contains("role"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_of_a_newer_format_or_of_strangers_is_refused() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let newer = r#"{"name":"clade","id":"1","format":99,"more":true}"#;
    etcd.ctl(&["put", "/clade/a/cluster", newer]);
    let error = refusal(&in_etcd(etcd.urls(), "/clade/a")).await;
    assert!(error.contains("format 99"), "{error}");
    etcd.ctl(&["put", "/registry/pods/x", "y"]);
    let error = refusal(&in_etcd(etcd.urls(), "/registry")).await;
    assert!(error.contains("`/registry/pods/x`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_renewed_while_it_runs_open_the_next_connection() {
    if !etcd_server::is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|it| folder.path().join(it));
    let tls = Tls { ca: ca.clone(), cert: cert.clone(), key: key.clone() };
    // One certificate for both sides, of an authority that changes with it.
    let renew = || {
        let authority = Authority::new();
        let (signed, own) = authority.sign("clade");
        std::fs::write(&ca, &authority.pem).unwrap();
        std::fs::write(&cert, signed).unwrap();
        std::fs::write(&key, own).unwrap();
    };
    renew();
    let mut etcd = Etcd::start_with(1, Some(&tls), &[]);
    let place = EtcdPlace {
        urls: etcd.urls(),
        prefix: "/clade/a".to_owned(),
        ca: Some(ca.clone()),
        identity: Some((cert.clone(), key.clone())),
        user: None,
    };
    let options = Options { place: Place::Etcd(place), ..in_etcd(vec![], "") };
    let backend = open(&options).await.unwrap();
    etcd.kill(0);
    renew();
    etcd.restart(0);
    etcd.wait_until_healthy();
    let led = tokio::time::timeout(std::time::Duration::from_secs(30), backend.campaign()).await;
    led.expect("it still shows its old certificate").unwrap().resign().await;
}
