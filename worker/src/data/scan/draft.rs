//! A pair while its members come in, in any order.

use serde_json::Value;

use crate::data::cause::{Cause, Unusable};
use crate::data::index::PairRow;
use crate::data::picture::{self, Header};

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
    /// Splits a member's name into the pair's key and the member's kind; nothing if it is no part of a pair.
    pub(super) fn of(name: &str) -> Option<(String, Self)> {
        let (stem, extension) = name.rsplit_once('.')?;
        let kind = match extension.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" | "png" | "webp" => Self::Picture,
            "gif" | "bmp" | "tif" | "tiff" | "svg" | "avif" | "heic" | "jxl" => {
                Self::ForeignPicture
            }
            "txt" => Self::Text,
            "json" => Self::Json,
            _ => return None,
        };
        // A key becomes a member's name again, so nothing in it may lead out of a folder.
        let parts = stem.split('/').filter(|part| !matches!(*part, "" | "."));
        let parts: Vec<_> = parts.map(|part| if part == ".." { "_" } else { part }).collect();
        (!parts.is_empty()).then(|| (parts.join("/"), kind))
    }
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    picture: Option<Result<Picture, Cause>>,
    text: Option<Result<String, Cause>>,
    json: Option<Result<Vec<String>, Cause>>,
    /// Members of each kind seen: pictures, texts, JSON files.
    seen: [u64; 3],
}

#[derive(Debug)]
struct Picture {
    header: Header,
    offset: u64,
    length: u32,
}

impl Draft {
    pub(super) fn add(&mut self, kind: Kind, bytes: &[u8], offset: u64, max_pixels: u64) {
        if !self.is_first(kind) {
            return;
        }
        match kind {
            Kind::Picture => {
                self.picture = Some(picture::judge(bytes, max_pixels).map(|header| Picture {
                    header,
                    offset,
                    length: u32::try_from(bytes.len()).expect("larger members are not read"),
                }));
            }
            Kind::ForeignPicture => self.picture = Some(Err(Cause::UnsupportedFormat)),
            Kind::Text => self.text = Some(Ok(String::from_utf8_lossy(bytes).into_owned())),
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

    /// Ends the pair: a row, or a cause. Further pairs of the same key are counted as duplicates.
    pub(super) fn judge(self, key: String, rows: &mut Vec<PairRow>, unusable: &mut Unusable) {
        let members = self.seen.into_iter().max().unwrap_or(0);
        for _ in 1..members {
            unusable.add(Cause::DuplicateKey, &key);
        }
        match self.usable() {
            Ok((
                Picture { header: Header { format, width, height }, offset, length },
                captions,
            )) => {
                rows.push(PairRow { key, captions, offset, length, format, width, height });
            }
            Err(cause) => unusable.add(cause, &key),
        }
    }

    fn usable(self) -> Result<(Picture, Vec<String>), Cause> {
        let picture = self.picture.unwrap_or(Err(Cause::MissingImage))?;
        let (mut all, mut broken) = (Vec::new(), None);
        let has_source =
            self.text.is_some() || matches!(&self.json, Some(Ok(list)) if !list.is_empty());
        match self.text {
            Some(Ok(text)) => all.push(text),
            Some(Err(cause)) => broken = Some(cause),
            None => (),
        }
        match self.json {
            Some(Ok(texts)) => all.extend(texts),
            Some(Err(cause)) => broken = Some(cause),
            None => (),
        }
        let mut captions: Vec<String> = Vec::new();
        for caption in all.iter().map(|caption| caption.trim()) {
            if !caption.is_empty() && !captions.iter().any(|known| known == caption) {
                captions.push(caption.to_owned());
            }
        }
        match (captions.is_empty(), broken, has_source) {
            (false, _, _) => Ok((picture, captions)),
            (true, Some(cause), _) => Err(cause),
            (true, None, true) => Err(Cause::EmptyCaption),
            (true, None, false) => Err(Cause::MissingCaption),
        }
    }
}

/// The captions of a JSON member: `caption`, and `texts` as strings or `[key, text]` pairs.
fn captions(bytes: &[u8]) -> Result<Vec<String>, Cause> {
    let value: Value = serde_json::from_slice(bytes).map_err(|_| Cause::BadJson)?;
    let object = value.as_object().ok_or(Cause::BadJson)?;
    let mut captions = Vec::new();
    match object.get("caption") {
        Some(Value::String(caption)) => captions.push(caption.clone()),
        Some(Value::Null) | None => (),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            return Err(Cause::BadJson);
        }
    }
    match object.get("texts") {
        Some(Value::Array(texts)) => {
            for text in texts {
                let text = match text.as_array().map(Vec::as_slice) {
                    Some([_key, text]) => text,
                    Some(_) | None => text,
                };
                captions.push(text.as_str().ok_or(Cause::BadJson)?.to_owned());
            }
        }
        Some(Value::Null) | None => (),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(Cause::BadJson);
        }
    }
    Ok(captions)
}
