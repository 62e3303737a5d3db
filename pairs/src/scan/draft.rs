//! A pair while its members come in, in any order.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::cause::Cause;
use crate::index::{FLAG_SCATTERED, FLAG_TEXT_LEFT_OUT, FLAG_TEXT_REPLACED, PairRow, checksum};
use crate::picture::{self, Header};

/// A longer caption is not one: no model here reads more than a few hundred bytes of it.
const MAX_CAPTION_BYTES: usize = 64 << 10;

/// A longer key is not one: it is listed by its beginning.
const MAX_KEY_BYTES: usize = 4 << 10;

/// The first [`MAX_KEY_BYTES`] of a key at most.
fn start(key: &str) -> &str {
    let mut end = key.len().min(MAX_KEY_BYTES);
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    &key[..end]
}

/// What a member is to its pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Picture,
    /// A picture in a format that is not read.
    ForeignPicture,
    Text,
    Json,
}

impl Kind {
    /// Splits a member's name into the pair's key and the member's kind, and tells whether the name is
    /// one to refuse; nothing if the member is no part of a pair.
    ///
    /// A key becomes a member's name again, so nothing in it may lead out of a folder.
    pub(super) fn of(name: &[u8]) -> Option<(String, Self, bool)> {
        let text = String::from_utf8_lossy(name);
        let (stem, extension) = text.rsplit_once('.')?;
        let kind = match extension.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" | "png" | "webp" => Self::Picture,
            "gif" | "bmp" | "tif" | "tiff" | "svg" | "avif" | "heic" | "jxl" => {
                Self::ForeignPicture
            }
            "txt" => Self::Text,
            "json" => Self::Json,
            _ => return None,
        };
        let is_bad = stem.starts_with('/')
            || stem.contains('\0')
            || stem.split('/').any(|part| part == "..")
            || std::str::from_utf8(name).is_err();
        if is_bad || stem.len() > MAX_KEY_BYTES {
            return Some((start(stem).to_owned(), kind, true));
        }
        let parts: Vec<_> = stem.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        (!parts.is_empty()).then(|| (parts.join("/"), kind, false))
    }
}

/// A member's content, and where it starts in the tar.
pub(super) struct Member<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) offset: u64,
}

/// The captions of one text or JSON member, and whether some of it was replaced or left out.
#[derive(Debug, Default)]
struct Texts {
    captions: Vec<String>,
    flags: u32,
    /// What was left out was left out for this.
    left_out: Option<Cause>,
}

#[derive(Debug)]
pub(super) struct Draft {
    /// Where the first member's header starts.
    place: u64,
    picture: Option<Result<Picture, Cause>>,
    text: Option<Result<Texts, Cause>>,
    json: Option<Result<Texts, Cause>>,
    /// Members of each kind seen: pictures, texts, JSON files.
    seen: [u64; 3],
    flags: u32,
    is_bad: bool,
}

#[derive(Debug)]
struct Picture {
    header: Header,
    offset: u64,
    length: u32,
    checksum: u64,
}

impl Draft {
    pub(super) const fn at(place: u64) -> Self {
        let (picture, text, json) = (None, None, None);
        Self { place, picture, text, json, seen: [0; 3], flags: 0, is_bad: false }
    }

    /// Where the first member's header starts in the tar.
    pub(super) const fn place(&self) -> u64 {
        self.place
    }

    /// Bytes held in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.text, &self.json].into_iter().flatten().flatten();
        let held = texts.flat_map(|texts| &texts.captions).map(|it| it.len() + size_of::<String>());
        // The pair's own fields, and its places in the tables it waits in.
        size_of::<Self>() + 128 + held.sum::<usize>()
    }

    /// Whether nothing more need come: a picture and a text, one after the other.
    pub(super) const fn is_complete(&self) -> bool {
        let has_text = self.text.is_some() || self.json.is_some();
        self.picture.is_some() && has_text && self.flags & FLAG_SCATTERED == 0
    }

    /// Members beyond the first of their kind: pairs of the same key.
    pub(super) fn surplus(&self) -> u64 {
        self.seen.into_iter().max().unwrap_or(0).saturating_sub(1)
    }

    /// Notes that members of other pairs stand between this one's.
    pub(super) const fn scattered(&mut self) {
        self.flags |= FLAG_SCATTERED;
    }

    /// Notes a name that leads elsewhere or is no text.
    pub(super) const fn bad_name(&mut self) {
        self.is_bad = true;
    }

    pub(super) fn add(&mut self, kind: Kind, member: Member<'_>, max_pixels: u64) {
        if !self.is_first(kind) {
            return;
        }
        let Member { bytes, offset } = member;
        match kind {
            Kind::Picture => {
                self.picture = Some(picture::judge(bytes, max_pixels).map(|header| Picture {
                    header,
                    offset,
                    length: u32::try_from(bytes.len()).expect("larger members are not read"),
                    checksum: checksum(bytes),
                }));
            }
            Kind::ForeignPicture => self.picture = Some(Err(Cause::UnsupportedFormat)),
            Kind::Text => {
                let text = String::from_utf8_lossy(bytes);
                let flags = if matches!(text, Cow::Owned(_)) { FLAG_TEXT_REPLACED } else { 0 };
                let mut texts = Texts { flags, ..Texts::default() };
                texts.take(&text);
                self.text = Some(Ok(texts));
            }
            Kind::Json => self.json = Some(captions(bytes)),
        }
    }

    /// Notes a member that is not read, for its size or its format.
    pub(super) fn too_large(&mut self, kind: Kind) {
        if !self.is_first(kind) {
            return;
        }
        let cause = Cause::TooManyBytes;
        match kind {
            Kind::Picture => self.picture = Some(Err(cause)),
            Kind::ForeignPicture => self.picture = Some(Err(Cause::UnsupportedFormat)),
            Kind::Text => self.text = Some(Err(cause)),
            Kind::Json => self.json = Some(Err(cause)),
        }
    }

    fn is_first(&mut self, kind: Kind) -> bool {
        let seen = match kind {
            Kind::Picture | Kind::ForeignPicture => &mut self.seen[0],
            Kind::Text => &mut self.seen[1],
            Kind::Json => &mut self.seen[2],
        };
        *seen += 1;
        *seen == 1
    }

    /// Ends the pair: a row, or a cause.
    pub(super) fn judge(self, key: String) -> Result<PairRow, Cause> {
        if self.is_bad {
            return Err(Cause::BadName);
        }
        let picture = self.picture.unwrap_or(Err(Cause::MissingImage))?;
        let Picture { header: Header { format, width, height }, offset, length, checksum } =
            picture;
        let has_source = self.text.is_some()
            || matches!(&self.json, Some(Ok(texts)) if !texts.captions.is_empty());
        let (mut captions, mut flags, mut broken) = (Vec::new(), self.flags, None);
        for texts in [self.text, self.json].into_iter().flatten() {
            match texts {
                Ok(texts) => {
                    flags |= texts.flags;
                    broken = texts.left_out.or(broken);
                    captions.extend(texts.captions);
                }
                Err(cause) => broken = Some(cause),
            }
        }
        if broken.is_some() {
            flags |= FLAG_TEXT_LEFT_OUT;
        }
        let captions = distinct(captions);
        match (captions.is_empty(), broken, has_source) {
            (false, _, _) => Ok(PairRow {
                key,
                captions,
                offset,
                length,
                format,
                width,
                height,
                checksum,
                flags,
            }),
            (true, Some(cause), _) => Err(cause),
            (true, None, true) => Err(Cause::EmptyCaption),
            (true, None, false) => Err(Cause::MissingCaption),
        }
    }
}

/// Trimmed captions that are not empty, each once.
fn distinct(all: Vec<String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    let trimmed = all.iter().map(|caption| caption.trim());
    trimmed
        .filter(|caption| !caption.is_empty() && known.insert(*caption))
        .map(str::to_owned)
        .collect()
}

impl Texts {
    fn take(&mut self, caption: &str) {
        if caption.len() > MAX_CAPTION_BYTES {
            self.left_out = Some(Cause::TooManyBytes);
        } else {
            self.captions.push(caption.to_owned());
        }
    }
}

/// The captions of a JSON member: `caption`, and `texts` as strings or `[key, text]` pairs.
fn captions(bytes: &[u8]) -> Result<Texts, Cause> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| Cause::BadJson)?;
    let object = value.as_object().ok_or(Cause::BadJson)?;
    let mut texts = Texts::default();
    match object.get("caption") {
        Some(Value::String(caption)) => texts.take(caption),
        Some(Value::Null) | None => (),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(Cause::BadJson);
        }
    }
    match object.get("texts") {
        Some(Value::Array(list)) => {
            for text in list {
                let text = match text.as_array().map(Vec::as_slice) {
                    Some([_key, text]) => text,
                    Some(_) | None => text,
                };
                texts.take(text.as_str().ok_or(Cause::BadJson)?);
            }
        }
        Some(Value::Null) | None => (),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(Cause::BadJson);
        }
    }
    Ok(texts)
}
