//! What people wrote about a picture, out of the metadata of its SVG.
//!
//! Captions are kept as noisy as they are: white space is collapsed, repetitions
//! and empty texts are dropped, nothing else. Broken XML is read as far as it
//! goes. It never fails: what cannot be read is no caption, and says why.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, Event};

/// More than twice the largest SVG of the packages, gzipped or not.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Captions {
    pub title: Option<String>,
    pub description: Option<String>,
    pub keywords: Vec<String>,
    /// Why reading stopped early, if it did.
    pub broken: Option<String>,
}

impl Captions {
    /// The captions of a pair: title, description, keywords in one line.
    pub(crate) fn texts(&self) -> Vec<String> {
        let Self { title, description, keywords, broken: _ } = self;
        let keywords = (!keywords.is_empty()).then(|| keywords.join(", "));
        let mut texts: Vec<String> = Vec::new();
        for text in [title.clone(), description.clone(), keywords].into_iter().flatten() {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        texts
    }
}

/// Reads the captions of the SVG at `stem` plus extension, if it lies in `root`.
pub(crate) fn read(stem: &Path, root: &Path) -> Captions {
    let broken = |why: String| Captions { broken: Some(why), ..Captions::default() };
    let candidates = [".svg", ".svgz", ".svg.gz"].map(|extension| {
        let mut path = stem.as_os_str().to_owned();
        path.push(extension);
        PathBuf::from(path)
    });
    let Some(path) = candidates.iter().find_map(|path| path.canonicalize().ok()) else {
        return broken("there is no SVG of this name".to_owned());
    };
    if !path.starts_with(root) {
        return broken(format!("its SVG is outside the packages: {}", path.display()));
    }
    match read_bounded(&path) {
        Ok(bytes) => parse(&to_text(bytes)),
        Err(error) => broken(format!("cannot read its SVG: {error}")),
    }
}

/// The file's content, unpacked if it is gzipped, whatever its extension says.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        MultiGzDecoder::new(&bytes[..]).take(MOST_BYTES + 1).read_to_end(&mut unpacked)?;
        bytes = unpacked;
    }
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MOST_BYTES) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!("it is larger than {MOST_BYTES} bytes")))
    }
}

/// UTF-16 by its mark, else UTF-8, else Latin-1, in which any bytes are text.
fn to_text(bytes: Vec<u8>) -> String {
    let wide = |unit: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|it| unit([it[0], it[1]]));
        char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match bytes[..] {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8(bytes)
            .unwrap_or_else(|error| error.as_bytes().iter().copied().map(char::from).collect()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Title,
    Description,
    Keyword,
}

/// The Dublin Core title, description and subjects of the work itself.
///
/// Its creator, publisher and rights have titles too, which are not captions.
pub(crate) fn parse(svg: &str) -> Captions {
    // The drawing before the metadata may be megabytes, or broken.
    let start = svg.find("<rdf:RDF").or_else(|| svg.find("<metadata")).unwrap_or(0);
    let mut reader = Reader::from_str(&svg[start..]);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;

    let mut found = Captions::default();
    let mut open: Vec<String> = Vec::new();
    // The field being read, its text so far, and the depth at which it opened.
    let mut current: Option<(Field, String, usize)> = None;
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                let name = tag.local_name().as_ref().to_owned();
                if current.is_none()
                    && let Some(field) = field_of(&name, &open)
                {
                    current = Some((field, String::new(), open.len()));
                }
                open.push(name);
            }
            Ok(Event::End(tag)) => {
                let ended = tag.local_name().as_ref() == "RDF";
                open.pop();
                if current.as_ref().is_some_and(|(_, _, depth)| open.len() <= *depth) {
                    found.keep(current.take());
                }
                if ended {
                    break;
                }
            }
            Ok(Event::Text(text)) => append(&mut current, &text),
            Ok(Event::CData(text)) => append(&mut current, &text),
            Ok(Event::GeneralRef(entity)) => append(&mut current, &resolve(&entity)),
            Ok(Event::Eof) => break,
            Ok(
                Event::Empty(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_),
            ) => {}
            Err(error) => {
                found.broken = Some(error.to_string());
                break;
            }
        }
    }
    // A title cut off by the end of the file is still what somebody wrote.
    found.keep(current);
    found
}

fn append(current: &mut Option<(Field, String, usize)>, more: &str) {
    if let Some((_, text, _)) = current {
        text.push_str(more);
    }
}

fn field_of(name: &str, open: &[String]) -> Option<Field> {
    let parent = open.last().map(String::as_str);
    match name {
        "title" if parent == Some("Work") => Some(Field::Title),
        "description" if parent == Some("Work") => Some(Field::Description),
        "li" if open.iter().any(|it| it == "subject") => Some(Field::Keyword),
        _ => None,
    }
}

/// The text of `&name;`: itself if nobody defined it.
fn resolve(entity: &BytesRef<'_>) -> String {
    if let Ok(Some(character)) = entity.resolve_char_ref() {
        return character.to_string();
    }
    resolve_xml_entity(entity).map_or_else(|| format!("&{};", &**entity), str::to_owned)
}

impl Captions {
    fn keep(&mut self, read: Option<(Field, String, usize)>) {
        let Some((field, text, _)) = read else { return };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return;
        }
        match field {
            Field::Title => _ = self.title.get_or_insert(text),
            Field::Description => _ = self.description.get_or_insert(text),
            Field::Keyword if self.keywords.contains(&text) => {}
            Field::Keyword => self.keywords.push(text),
        }
    }
}

#[cfg(test)]
mod tests;
