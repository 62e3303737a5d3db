use std::fs;
use std::io::Write as _;

use super::*;

const PEAR: &str = r#"<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg"><metadata>
<rdf:RDF xmlns:rdf="r" xmlns:cc="c" xmlns:dc="d"><cc:Work rdf:about="">
  <dc:title>A   green
     pear</dc:title>
  <dc:description>Fruit &amp; leaf, caf&#233;</dc:description>
  <dc:subject><rdf:Bag><rdf:li>food</rdf:li><rdf:li></rdf:li><rdf:li>pear</rdf:li><rdf:li>food</rdf:li></rdf:Bag></dc:subject>
  <dc:publisher><cc:Agent><dc:title>Open Clip Art Project</dc:title></cc:Agent></dc:publisher>
  <dc:creator><rdf:Bag><rdf:li>Somebody</rdf:li></rdf:Bag></dc:creator>
</cc:Work></rdf:RDF></metadata><path d="M0"/></svg>"#;

fn texts(svg: &str) -> Vec<String> {
    parse(svg).texts()
}

#[test]
fn a_picture_has_a_title_a_description_and_keywords_of_its_own() {
    assert_eq!(texts(PEAR), ["A green pear", "Fruit & leaf, café", "food, pear"]);
    assert_eq!(parse(PEAR).broken, None);
}

#[test]
fn equal_texts_are_one_caption() {
    let svg = PEAR.replace("Fruit &amp; leaf, caf&#233;", "A green pear");
    assert_eq!(texts(&svg), ["A green pear", "food, pear"]);
}

#[test]
fn nothing_written_is_no_caption() {
    assert!(texts("<svg><metadata/></svg>").is_empty());
    assert!(texts("").is_empty());
    assert!(texts("<rdf:RDF><cc:Work><dc:title>  </dc:title></cc:Work></rdf:RDF>").is_empty());
}

#[test]
fn broken_xml_before_the_metadata_does_not_hide_the_title() {
    let svg = PEAR.replace("<metadata>", "<path d=<<< a='1' a='2'></g></g>& <metadata>");
    assert_eq!(texts(&svg)[0], "A green pear");
}

#[test]
fn broken_xml_after_the_title_keeps_the_title() {
    let svg = PEAR.replace("<dc:description>", "<dc:description <!-- <<dc:");
    assert_eq!(texts(&svg)[0], "A green pear");
    let (cut, _) = PEAR.split_at(PEAR.find("<dc:subject").unwrap() + 5);
    let captions = parse(cut);
    assert_eq!(captions.texts(), ["A green pear", "Fruit & leaf, café"]);
    assert!(captions.broken.is_some(), "a file that ends in a tag is broken");
}

#[test]
fn an_ampersand_alone_and_an_unknown_entity_stay_as_written() {
    let svg = PEAR.replace("A   green", "Salt & pepper &ns_svg;");
    assert_eq!(texts(&svg)[0], "Salt & pepper &ns_svg; pear");
}

#[test]
fn a_gzipped_svg_and_a_latin_1_svg_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let latin: Vec<u8> = PEAR
        .replace("A   green", "Poire à")
        .chars()
        .map(|it| u8::try_from(u32::from(it)).unwrap())
        .collect();
    fs::write(root.join("latin.svg"), latin).unwrap();
    let file = File::create(root.join("packed.svg")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packed.write_all(PEAR.as_bytes()).unwrap();
    packed.finish().unwrap();

    assert_eq!(read(&root.join("latin"), &root).texts()[0], "Poire à pear");
    assert_eq!(read(&root.join("packed"), &root).texts()[0], "A green pear");
    let missing = read(&root.join("missing"), &root);
    assert!(missing.texts().is_empty() && missing.broken.is_some());
}
