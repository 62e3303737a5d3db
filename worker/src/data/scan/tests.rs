use super::*;
use crate::data::fixture::Member as TarMember;
use crate::data::fixture::{jpeg, jpeg_that_claims, member, pair, png, write_tar};

fn scanned(members: &[TarMember]) -> Scan {
    scanned_after(members, |_| ())
}

/// Scans a tar that something has happened to.
fn scanned_after(members: &[TarMember], damage: impl FnOnce(&mut Vec<u8>)) -> Scan {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.tar");
    write_tar(&path, members);
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, &bytes).unwrap();
    let scan = scan(&path, 1_000_000, |_, _| true).unwrap().unwrap();
    assert_eq!(scan.sha256, clade_store::digest(&bytes));
    for row in &scan.rows {
        let start = usize::try_from(row.offset).unwrap();
        let picture = &bytes[start..start + row.length as usize];
        assert!(clade_model::preprocess::decode_rgb(picture, 1 << 20).is_ok(), "{}", row.key);
    }
    scan
}

fn keys(scan: &Scan) -> Vec<&str> {
    scan.rows.iter().map(|row| &*row.key).collect()
}

/// The cause for which the one pair of `members` is refused.
fn refusal(members: &[TarMember]) -> Cause {
    let scan = scanned(members);
    assert_eq!(keys(&scan), [] as [&str; 0]);
    assert_eq!(scan.unusable.total(), 1, "{:?}", scan.unusable);
    scan.unusable.by_cause().next().unwrap().0
}

#[test]
fn members_form_pairs_whatever_their_order_and_format() {
    let webp = {
        let mut bytes = io::Cursor::new(Vec::new());
        image::RgbImage::new(5, 3).write_to(&mut bytes, image::ImageFormat::WebP).unwrap();
        bytes.into_inner()
    };
    let long = "x".repeat(180);
    let scan = scanned(&[
        member("./a/late.txt", "  a late one \n"),
        member("README.md", "not a pair"),
        member(&format!("{long}.png"), png(4, 6, "p")),
        member("a/late.jpg", jpeg(8, 4, "j")),
        member("w.webp", webp),
        member("w.json", r#"{"caption": "one", "texts": ["two", ["en", "three"], "one", " "]}"#),
        member(&format!("{long}.json"), r#"{"texts": [["title", "grün"]]}"#),
        member("dotted.name.v2.JPEG", jpeg(2, 2, "d")),
        member("dotted.name.v2.txt", "dots"),
    ]);
    assert_eq!(scan.unusable, Unusable::default());
    assert_eq!(keys(&scan), [&long, "a/late", "w", "dotted.name.v2"]);
    let captions: Vec<_> = scan.rows.iter().map(|row| row.captions.join("|")).collect();
    assert_eq!(captions, ["grün", "a late one", "one|two|three", "dots"]);
    assert_eq!((scan.rows[1].width, scan.rows[1].height), (8, 4));
    assert_eq!(scan.rows[2].format.extension(), "webp");
}

#[test]
fn a_picture_of_one_pixel_is_usable() {
    let scan = scanned(&[member("one.png", png(1, 1, "1")), member("one.txt", "a dot")]);
    assert_eq!(keys(&scan), ["one"]);
}

#[test]
fn every_unusable_pair_has_its_cause() {
    let text = || member("k.txt", "a caption");
    let sound = || jpeg(8, 8, "k");
    let cut = |mut bytes: Vec<u8>, by: usize| {
        bytes.truncate(bytes.len() - by);
        bytes
    };
    for (members, cause) in [
        (vec![text()], Cause::MissingImage),
        (vec![member("k.jpg", sound())], Cause::MissingCaption),
        (vec![member("k.jpg", sound()), member("k.json", "{}")], Cause::MissingCaption),
        (vec![member("k.jpg", sound()), member("k.txt", " \n")], Cause::EmptyCaption),
        (
            vec![member("k.jpg", sound()), member("k.json", r#"{"texts": ["", " "]}"#)],
            Cause::EmptyCaption,
        ),
        (vec![member("k.jpg", "no picture at all"), text()], Cause::UnreadableHeader),
        (vec![member("k.jpg", ""), text()], Cause::UnreadableHeader),
        (vec![member("k.jpg", cut(sound(), 2)), text()], Cause::TruncatedImage),
        (vec![member("k.jpg", cut(sound(), 300)), text()], Cause::TruncatedImage),
        (vec![member("k.png", cut(png(8, 8, "k"), 12)), text()], Cause::TruncatedImage),
        (vec![member("k.jpg", jpeg_that_claims(20_000, 20_000)), text()], Cause::TooManyPixels),
        (vec![member("k.gif", "GIF89a"), text()], Cause::UnsupportedFormat),
        (vec![member("k.jpg", "GIF89a in disguise"), text()], Cause::UnsupportedFormat),
        (vec![member("k.jpg", sound()), member("k.json", "{\"caption\": ")], Cause::BadJson),
        (vec![member("k.jpg", sound()), member("k.json", "[1]")], Cause::BadJson),
        (
            vec![member("k.jpg", sound()), member("k.txt", vec![b'a'; (4 << 20) + 1])],
            Cause::TooManyBytes,
        ),
    ] {
        let names: Vec<_> = members.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(refusal(&members), cause, "{names:?}");
    }
}

#[test]
fn broken_json_beside_a_sound_text_harms_nobody() {
    let mut members = pair("k", "a caption");
    members.push(member("k.json", "{"));
    assert_eq!(keys(&scanned(&members)), ["k"]);
}

#[test]
fn of_equal_keys_the_first_pair_stays() {
    let members = [pair("k", "first"), pair("other", "x"), pair("k", "second")].concat();
    let scan = scanned(&members);
    assert_eq!(keys(&scan), ["k", "other"]);
    assert_eq!(scan.rows[0].captions, ["first"]);
    assert_eq!(scan.unusable.of(Cause::DuplicateKey), 1);
}

#[test]
fn a_name_cannot_lead_out_of_a_folder() {
    let scan = scanned(&[]);
    assert_eq!(keys(&scan), [] as [&str; 0]);
    let (key, _) = Kind::of("/../../etc/./passwd.txt").unwrap();
    assert_eq!(key, "_/_/etc/passwd");
    assert_eq!(Kind::of("folder/.txt"), Some(("folder".to_owned(), Kind::Text)));
    assert_eq!(Kind::of(".txt"), None);
}

#[test]
fn what_was_read_before_a_break_counts_and_the_break_is_told() {
    let members = [pair("a", "one"), pair("b", "two"), pair("c", "three")].concat();
    // Within the last picture, and within the header before it.
    for cut in [2_700, 1_900] {
        let scan = scanned_after(&members, |bytes| bytes.truncate(bytes.len() - cut));
        assert_eq!(keys(&scan)[0], "a");
        assert!(scan.rows.len() < 3);
        assert_eq!(scan.unusable.of(Cause::UnreadableTar), 1, "cut by {cut}");
    }
    let scan = scanned_after(&members, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0x55);
    });
    assert_eq!(keys(&scan)[0], "a");
    assert_eq!(scan.unusable.of(Cause::UnreadableTar), 1);
}

#[test]
fn what_is_no_tar_is_told_and_named() {
    for content in [&b""[..], b"this is no tar", &[0x1f, 0x8b, 8, 0], &[7; 5_000]] {
        let scan = scanned_after(&[], |bytes| *bytes = content.to_vec());
        assert_eq!(scan.rows, []);
        let (cause, listed) = scan.unusable.by_cause().next().unwrap();
        assert_eq!((cause, listed.count), (Cause::UnreadableTar, 1));
        assert!(listed.keys[0].ends_with("it.tar"));
    }
}
