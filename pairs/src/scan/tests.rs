use std::ops::Deref;

use super::*;
use crate::fixture::{Member as TarMember, jpeg, jpeg_that_claims, member, pair, png, tar};
use crate::index::{FLAG_SCATTERED, FLAG_TEXT_LEFT_OUT, FLAG_TEXT_REPLACED};

struct Scanned {
    rows: Vec<PairRow>,
    scan: Scan,
}

impl Deref for Scanned {
    type Target = Scan;

    fn deref(&self) -> &Scan {
        &self.scan
    }
}

fn scanned(members: &[TarMember]) -> Scanned {
    scanned_after(members, |_| ())
}

/// Scans a tar that something has happened to.
fn scanned_after(members: &[TarMember], damage: impl FnOnce(&mut Vec<u8>)) -> Scanned {
    let mut bytes = tar(members);
    damage(&mut bytes);
    scan_bytes(&bytes, ScanOptions::new(1_000_000))
}

fn scan_bytes(bytes: &[u8], options: ScanOptions) -> Scanned {
    let mut rows = Vec::new();
    let keep = |row| {
        rows.push(row);
        Ok(())
    };
    let scan = scan(bytes, "it.tar", options, keep, |_, _| true).unwrap().unwrap();
    assert_eq!(scan.sha256, clade_store::digest(bytes));
    assert_eq!((scan.bytes, scan.pairs), (bytes.len() as u64, rows.len() as u64));
    for row in &rows {
        let start = usize::try_from(row.offset).unwrap();
        let picture = &bytes[start..start + row.length as usize];
        assert_eq!(crate::index::checksum(picture), row.checksum);
        assert!(clade_pictures::decode_rgb(picture, 1 << 20).is_ok(), "{}", row.key);
    }
    Scanned { rows, scan }
}

fn keys(scan: &Scanned) -> Vec<&str> {
    scan.rows.iter().map(|row| &*row.key).collect()
}

/// The cause for which the one pair of `members` is refused.
fn refusal(members: &[TarMember]) -> Cause {
    let scan = scanned(members);
    assert_eq!(keys(&scan), [] as [&str; 0]);
    assert_eq!(scan.unusable.total(), 1, "{:?}", scan.unusable);
    let (cause, listed) = scan.unusable.by_cause().next().unwrap();
    let place = &listed.places[0];
    assert_eq!((&*place.tar, place.offset), ("it.tar", 0), "{cause:?}");
    cause
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
    // Those whose members stand apart come last.
    assert_eq!(keys(&scan), ["w", "dotted.name.v2", "a/late", &long]);
    let captions: Vec<_> = scan.rows.iter().map(|row| row.captions.join("|")).collect();
    assert_eq!(captions, ["one|two|three", "dots", "a late one", "grün"]);
    assert_eq!((scan.rows[2].width, scan.rows[2].height), (8, 4));
    assert_eq!(scan.rows[0].format.extension(), "webp");
    let flags: Vec<_> = scan.rows.iter().map(|row| row.flags).collect();
    assert_eq!(flags, [0, 0, FLAG_SCATTERED, FLAG_SCATTERED]);
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
        (vec![member("k.jpg", sound()), member("k.txt", vec![b'a'; 1 << 20])], Cause::TooManyBytes),
        (
            vec![
                member("k.jpg", sound()),
                member("k.json", format!(r#"{{"caption": "{}"}}"#, "a".repeat(1 << 20))),
            ],
            Cause::TooManyBytes,
        ),
    ] {
        let names: Vec<_> = members.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(refusal(&members), cause, "{names:?}");
    }
}

#[test]
fn broken_texts_beside_a_sound_one_harm_nobody_and_are_marked() {
    for (name, content) in [("k.json", "{".to_owned()), ("k.txt", "x".repeat(1 << 20))] {
        let mut members = vec![member("k.jpg", jpeg(8, 8, "k"))];
        members.push(member("k.txt", "a caption"));
        members.retain(|(known, _)| known != name);
        members.push(member(name, content));
        if name == "k.txt" {
            members.push(member("k.json", r#"{"caption": "a caption"}"#));
        }
        let scan = scanned(&members);
        assert_eq!((&*scan.rows[0].key, &*scan.rows[0].captions[0]), ("k", "a caption"));
        assert_eq!(scan.rows[0].flags, FLAG_TEXT_LEFT_OUT);
    }
    let scan = scanned(&[member("k.png", png(8, 8, "k")), member("k.txt", b"caf\xe9")]);
    assert_eq!(scan.rows[0].captions, ["caf\u{fffd}"]);
    assert_eq!(scan.rows[0].flags, FLAG_TEXT_REPLACED);
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
fn all_pictures_first_and_then_all_texts_are_pairs_too() {
    let members: Vec<_> =
        (0..30).flat_map(|number| pair(&format!("{number:02}"), "a text")).collect();
    let (pictures, texts): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|(name, _)| name.ends_with("jpg"));
    let json = (0..30).map(|number| member(&format!("{number:02}.json"), r#"{"texts": ["more"]}"#));
    let all: Vec<_> = pictures.into_iter().chain(texts).chain(json).collect();
    let scan = scanned(&all);
    assert_eq!(scan.unusable, Unusable::default());
    assert_eq!(scan.rows.len(), 30);
    assert!(scan.rows.iter().all(|row| row.captions == ["a text", "more"]));

    // With room for a few only, those that waited longest are judged as they stand.
    let bytes = tar(&all);
    let scan = scan_bytes(&bytes, ScanOptions { max_pixels: 1_000, max_waiting: 6_000 });
    let (lost, kept) = (scan.unusable.total(), scan.rows.len() as u64);
    assert!(scan.unusable.of(Cause::MissingCaption) > 5 && kept < 30, "{:?}", scan.unusable);
    assert!(lost >= 30 - kept, "{lost} and {kept}");
}

#[test]
fn names_that_lead_elsewhere_or_are_no_text_are_refused_with_their_place() {
    let raw = |name: &[u8], content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let picture = jpeg(8, 8, "k");
    for stem in [&b"../k"[..], b"/etc/k", b"a/../../k", b"k\xff\xfe", b".."] {
        let mut bytes = raw(&[stem, b".jpg"].concat(), &picture);
        bytes.extend(raw(&[stem, b".txt"].concat(), b"a caption"));
        bytes.extend(tar(&pair("sound", "a caption")));
        let scan = scan_bytes(&bytes, ScanOptions::new(1_000_000));
        assert_eq!(keys(&scan), ["sound"], "{stem:?}");
        assert_eq!((scan.unusable.of(Cause::BadName), scan.unusable.total()), (1, 1), "{stem:?}");
    }
    let fine = Kind::of(b"./a/./b//c.txt").unwrap();
    assert_eq!(fine, ("a/b/c".to_owned(), Kind::Text, false));
    assert_eq!(Kind::of(b".txt"), None);
    assert_eq!(Kind::of(b"folder/.txt"), Some(("folder".to_owned(), Kind::Text, false)));
}

#[test]
fn headers_of_pax_and_of_gnu_with_long_names_are_read() {
    let long = "deep/".repeat(60) + "name";
    let mut bytes = Vec::new();
    let mut pax = tar::Builder::new(&mut bytes);
    for (extension, content) in [("jpg", jpeg(8, 8, "k")), ("txt", b"a caption".to_vec())] {
        let name = format!("{long}.{extension}");
        pax.append_pax_extensions([("path", name.as_bytes()), ("mtime", b"1.5")]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_path(format!("short.{extension}")).unwrap();
        header.set_cksum();
        pax.append(&header, &*content).unwrap();
    }
    pax.finish().unwrap();
    drop(pax);
    assert_eq!(keys(&scan_bytes(&bytes, ScanOptions::new(1_000_000))), [&*long]);
    assert_eq!(keys(&scanned(&pair(&long, "a caption"))), [&*long]);
}

#[test]
fn tars_joined_end_to_end_are_read_to_the_last() {
    let mut bytes = tar(&pair("a", "one"));
    bytes.extend(tar(&pair("b", "two")));
    let scan = scan_bytes(&bytes, ScanOptions::new(1_000_000));
    assert_eq!((keys(&scan), scan.unusable.total()), (vec!["a", "b"], 0));
}

#[test]
fn a_tar_cut_between_members_is_told_apart_from_a_whole_one() {
    let scan = scanned_after(&pair("a", "one"), |bytes| bytes.truncate(bytes.len() - 1024));
    assert_eq!((keys(&scan), scan.unusable.of(Cause::UnreadableTar)), (vec!["a"], 1));
    let place = &scan.unusable.by_cause().next().unwrap().1.places[0];
    assert_eq!((&place.key, place.offset), (&None, scan.bytes));
}

#[test]
fn a_reader_that_fails_is_no_fault_of_the_tar() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::other("the line is dead"));
            }
            self.0.read(into)
        }
    }
    let bytes = tar(&[pair("a", "one"), pair("b", "two")].concat());
    for cut in [0, 100, 512, 700, bytes.len() / 2, bytes.len() - 1024] {
        let tar = Failing(&bytes[..cut]);
        let result = scan(tar, "it", ScanOptions::new(1_000_000), |_| Ok(()), |_, _| true);
        assert_eq!(result.unwrap_err().to_string(), "the line is dead", "cut at {cut}");
    }
}

#[test]
fn a_json_of_very_many_captions_takes_no_time_beyond_its_size() {
    let texts: Vec<String> = (0..200_000).map(|number| format!("\"{number}\"")).collect();
    let json = format!(r#"{{"texts": [{}]}}"#, texts.join(","));
    let scan = scanned(&[member("k.jpg", jpeg(8, 8, "k")), member("k.json", json)]);
    assert_eq!(scan.rows[0].captions.len(), 200_000);
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
        assert_eq!(keys(&scan), [] as [&str; 0]);
        let (cause, listed) = scan.unusable.by_cause().next().unwrap();
        assert_eq!((cause, listed.count), (Cause::UnreadableTar, 1));
        assert_eq!(listed.places[0].tar, "it.tar");
    }
}
