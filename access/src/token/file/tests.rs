use std::time::{Duration, UNIX_EPOCH};

use super::super::{Expiry, Token};
use super::*;
use crate::Role;

fn entry(token: &Token, name: &str) -> String {
    let end = Expiry::At(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    Entry::new(token, name, Role::Operator, end).unwrap().to_yaml()
}

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(text: &str) -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        scene.write(text);
        scene
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tokens.yaml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

#[test]
fn a_token_is_found_by_itself_alone_and_what_is_written_is_read() {
    let (alice, bob, nobody) =
        (Token::draw().unwrap(), Token::draw().unwrap(), Token::draw().unwrap());
    let scene = Scene::new(&format!("# ours\n{}{}", entry(&alice, "alice"), entry(&bob, "bob")));
    let tokens = TokenFile::open(&scene.path()).unwrap().tokens();
    for (token, name) in [(&alice, "alice"), (&bob, "bob")] {
        let owner = tokens.owner(token.reveal()).unwrap();
        assert_eq!((owner.name(), owner.role()), (name, Role::Operator));
        assert_eq!(owner.ends, Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
    }
    assert_eq!(tokens.owner(nobody.reveal()), None);
    assert_eq!(tokens.owner(&alice.digest().to_string()), None, "the digest is no token");
    assert_eq!(tokens.owner(""), None);
}

#[test]
fn a_changed_file_is_taken_and_a_broken_one_changes_nothing() {
    let (alice, bob) = (Token::draw().unwrap(), Token::draw().unwrap());
    let scene = Scene::new(&entry(&alice, "alice"));
    let mut file = TokenFile::open(&scene.path()).unwrap();
    let tokens = file.tokens();
    let known = tokens.owner(alice.reveal()).unwrap();
    assert!(!file.reread().unwrap());
    let good = entry(&bob, "bob");
    let broken = [
        String::new(),
        "# all gone\n".to_owned(),
        "- name: bob\n".to_owned(),
        good.replace("operator", "king"),
        good.replace("expires", "expire"),
        good.replace("sha256: ", "sha256: 0"),
        good.replace("2027-01-15T08:00:00Z", "soon"),
        good.replace("bob", "bob the builder"),
        format!("{good}{}", good.replace("bob", "eve")),
    ];
    for text in broken {
        scene.write(&text);
        assert!(file.reread().is_err(), "{text:?} was taken");
        assert!(tokens.still_has(&known), "{text:?}");
    }
    scene.write(&good);
    assert!(file.reread().unwrap());
    assert!(!tokens.still_has(&known));
    assert_eq!(tokens.owner(alice.reveal()), None);
    assert!(tokens.owner(bob.reveal()).is_some());
    scene.write("[]\n");
    assert!(file.reread().unwrap());
    assert_eq!(tokens.owner(bob.reveal()), None);
}

#[test]
fn a_time_to_live_is_a_span_or_never() {
    let now = UNIX_EPOCH + Duration::from_secs(1);
    let after = |text| Expiry::after(text, now);
    assert_eq!(after("2h"), Ok(Expiry::At(now + Duration::from_secs(7_200))));
    assert_eq!(after("never"), Ok(Expiry::Never));
    for bad in ["", "90", "0s", "-1d", "200years", "99999999999999999999d", "1ms"] {
        assert!(after(bad).is_err(), "{bad:?} was taken");
    }
}

#[test]
fn an_entry_is_added_to_a_file_that_means_something_and_to_no_other() {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::append;

    let scene = Scene::new("[]\n");
    std::fs::set_permissions(scene.path(), std::fs::Permissions::from_mode(0o640)).unwrap();
    let (alice, bob) = (Token::draw().unwrap(), Token::draw().unwrap());
    let entry = |token, name| Entry::new(token, name, Role::Viewer, Expiry::Never).unwrap();
    append(&scene.path(), &entry(&alice, "alice")).unwrap();
    append(&scene.path(), &entry(&bob, "bob")).unwrap();
    let tokens = TokenFile::open(&scene.path()).unwrap().tokens();
    assert_eq!(tokens.owner(alice.reveal()).unwrap().name(), "alice");
    assert_eq!(tokens.owner(bob.reveal()).unwrap().name(), "bob");
    assert_eq!(std::fs::metadata(scene.path()).unwrap().permissions().mode() & 0o777, 0o640);

    scene.write("- name: [");
    assert!(append(&scene.path(), &entry(&bob, "bob")).is_err());
    assert_eq!(std::fs::read_to_string(scene.path()).unwrap(), "- name: [");

    let new = scene.folder.path().join("new.yaml");
    append(&new, &entry(&bob, "bob")).unwrap();
    assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
}
