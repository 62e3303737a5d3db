//! Turns evaluation sets into features, a batch of pictures at a time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use clade_core::ids::Digest;
use clade_model::clip::ClipModel;
use clade_model::tokenizer::Tokenizer;
use clade_model::zeroshot::class_embeddings;
use clade_pairs::pictures::{decode_rgb, eval_pixels};
use tch::{Kind, Tensor};

use super::arrays::{Arrays, Matrix, Values};
use super::artefact::{CaptionTexts, ClassTexts, Unusable};
use super::folder::{Folder, lines, unreadable};
use super::groups::{self, Group, Interrupted};
use crate::context::{Context, Ending};

/// Pictures encoded at once.
const BATCH: usize = 256;
/// Captions encoded at once.
const TEXT_BATCH: usize = 1024;
/// Unusable pictures that are listed by key.
const MAX_EXAMPLES: usize = 100;
/// Pictures, and texts, of each set that are kept for comparing with OpenCLIP.
const CHECKED: usize = 6;

/// One set's features and words, and what was left out.
pub(super) struct Encoded {
    pub(super) features: Arrays,
    /// JSON.
    pub(super) texts: Vec<u8>,
    pub(super) pictures: u64,
    pub(super) texts_count: u64,
    pub(super) unusable: BTreeMap<String, u64>,
    pub(super) examples: Vec<Unusable>,
    pub(super) tars: Vec<Digest>,
}

/// One model at work on all sets.
pub(super) struct Encoder<'a> {
    context: &'a Context,
    model: &'a ClipModel,
    tokenizer: &'a Tokenizer,
    done: u64,
    total: u64,
    /// Pixels of the pictures kept for the comparison, and the texts.
    kept_pixels: Vec<u8>,
    kept_texts: Vec<String>,
}

/// The usable pictures of one set, and what the set says of each.
struct Pictures<T> {
    features: Vec<f32>,
    keys: Vec<String>,
    said: Vec<T>,
    unusable: BTreeMap<String, u64>,
    examples: Vec<Unusable>,
    tars: Vec<Digest>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(
        context: &'a Context,
        model: &'a ClipModel,
        tokenizer: &'a Tokenizer,
        total: u64,
    ) -> Self {
        Self {
            context,
            model,
            tokenizer,
            done: 0,
            total,
            kept_pixels: Vec::new(),
            kept_texts: Vec::new(),
        }
    }

    pub(super) fn classification(&mut self, folder: &Folder) -> Result<Encoded, Ending> {
        let classes = folder.classes.len();
        let found = self.pictures(folder, |group| {
            let text = group.text("cls").ok_or("missing-label")?;
            let label: usize = text.parse().map_err(|_| "bad-label")?;
            (label < classes).then_some(label).ok_or("bad-label")
        })?;
        let Pictures { features, keys, said: labels, unusable, examples, tars } = found;
        let (classes, templates) = (folder.classes.clone(), folder.templates.clone());
        let class_features = class_embeddings(self.model, self.tokenizer, &classes, &templates);
        let prompts = classes.iter().take(CHECKED).map(|class| fill(&templates[0], class));
        self.kept_texts.extend(prompts);

        let mut arrays = Arrays::default();
        arrays.put_matrix("image_features", self.matrix(keys.len(), features));
        arrays.put_matrix("class_features", self.matrix(classes.len(), rows(&class_features)));
        let labels: Vec<i64> = labels.iter().map(|label| index(*label)).collect();
        arrays.put("labels", &[labels.len()], Values::I64(labels));
        let (pictures, texts_count) = (keys.len() as u64, classes.len() as u64);
        let texts = json(&ClassTexts { classes, templates, keys });
        Ok(Encoded { features: arrays, texts, pictures, texts_count, unusable, examples, tars })
    }

    pub(super) fn retrieval(&mut self, folder: &Folder) -> Result<Encoded, Ending> {
        let found = self.pictures(folder, |group| {
            let captions = group.text("txt").map(|text| lines(&text)).unwrap_or_default();
            if captions.is_empty() { Err("missing-caption") } else { Ok(captions) }
        })?;
        let Pictures { features, keys, said, unusable, examples, tars } = found;
        let (captions, pairs) = different(&said);
        let text_features = self.captions(&captions)?;
        self.kept_texts.extend(captions.iter().take(CHECKED).cloned());

        let mut arrays = Arrays::default();
        arrays.put_matrix("image_features", self.matrix(keys.len(), features));
        arrays.put_matrix("text_features", self.matrix(captions.len(), text_features));
        let flat = pairs.iter().flat_map(|(picture, caption)| [index(*picture), index(*caption)]);
        arrays.put("pairs", &[pairs.len(), 2], Values::I64(flat.collect()));
        let (pictures, texts_count) = (keys.len() as u64, captions.len() as u64);
        let texts = json(&CaptionTexts { captions, keys });
        Ok(Encoded { features: arrays, texts, pictures, texts_count, unusable, examples, tars })
    }

    /// Pixels, token ids and features of the first pictures and texts of every set.
    pub(super) fn check(&self) -> Option<Arrays> {
        if self.kept_pixels.is_empty() || self.kept_texts.is_empty() {
            return None;
        }
        let pixels = self.tensor(&self.kept_pixels);
        let context_length = self.model.config().context_length();
        let tokens = self.tokenizer.encode_batch(&self.kept_texts, context_length);
        let (pictures, texts) = (size(&pixels), size(&tokens));
        let side = self.model.config().image_size();
        let mut arrays = Arrays::default();
        let features = rows(&self.model.embed_pixels(&pixels));
        arrays.put_matrix("image_features", self.matrix(pictures, features));
        let features = rows(&self.model.embed_tokens(&tokens));
        arrays.put_matrix("text_features", self.matrix(texts, features));
        arrays.put("pixels", &[pictures, 3, side, side], Values::U8(self.kept_pixels.clone()));
        let ids = Vec::<i64>::try_from(tokens.flatten(0, -1)).expect("token ids are i64");
        arrays.put("tokens", &[texts, context_length], Values::I64(ids));
        arrays.set_note(serde_json::json!({ "texts": self.kept_texts }));
        Some(arrays)
    }

    /// Reads, decodes and encodes every picture that `say` has something to say of.
    fn pictures<T>(
        &mut self,
        folder: &Folder,
        say: impl Fn(&Group) -> Result<T, &'static str>,
    ) -> Result<Pictures<T>, Ending> {
        let max_pixels = self.context.spec.spec.dataset.max_pixels.0;
        let side = self.model.config().image_size();
        let mut found = Pictures {
            features: Vec::new(),
            keys: Vec::new(),
            said: Vec::new(),
            unusable: BTreeMap::new(),
            examples: Vec::new(),
            tars: Vec::new(),
        };
        let mut batch: Vec<u8> = Vec::new();
        let picture_bytes = 3 * side * side;
        let keep = self.kept_pixels.len() + CHECKED * picture_bytes;
        for tar in &folder.tars {
            let read = groups::visit(tar, |group| {
                if group.picture().is_some() {
                    self.done += 1;
                }
                let judged = say(&group).and_then(|said| {
                    let picture = group.picture().ok_or("missing-picture")?;
                    Ok((said, pixels_of(picture, max_pixels, side)?))
                });
                match judged {
                    Ok((said, pixels)) => {
                        if self.kept_pixels.len() < keep {
                            self.kept_pixels.extend_from_slice(&pixels);
                        }
                        batch.extend_from_slice(&pixels);
                        found.keys.push(group.key);
                        found.said.push(said);
                    }
                    Err(cause) => {
                        *found.unusable.entry(cause.to_owned()).or_default() += 1;
                        if found.examples.len() < MAX_EXAMPLES {
                            let cause = cause.to_owned();
                            found.examples.push(Unusable { key: group.key, cause });
                        }
                    }
                }
                if batch.len() >= BATCH * picture_bytes {
                    self.flush(&mut batch, &mut found.features)?;
                }
                Ok(())
            });
            match read {
                Ok(digest) => found.tars.push(digest),
                Err(Interrupted::Unreadable(error)) => return Err(unreadable(tar, &error).into()),
                Err(Interrupted::Visitor(ending)) => return Err(ending),
            }
        }
        self.flush(&mut batch, &mut found.features)?;
        Ok(found)
    }

    /// Encodes a batch, reports, and looks whether to stop.
    fn flush(&self, batch: &mut Vec<u8>, features: &mut Vec<f32>) -> Result<(), Ending> {
        if !batch.is_empty() {
            features.extend(rows(&self.model.embed_pixels(&self.tensor(batch))));
            batch.clear();
        }
        self.context.reporter.progress(self.done, self.total, None);
        if self.context.is_stopping() { Err(Ending::Stopped) } else { Ok(()) }
    }

    fn captions(&self, captions: &[String]) -> Result<Vec<f32>, Ending> {
        let context_length = self.model.config().context_length();
        let mut features = Vec::new();
        for chunk in captions.chunks(TEXT_BATCH) {
            let tokens = self.tokenizer.encode_batch(chunk, context_length);
            features.extend(rows(&self.model.embed_tokens(&tokens)));
            self.context.reporter.progress(self.done, self.total, None);
            if self.context.is_stopping() {
                return Err(Ending::Stopped);
            }
        }
        Ok(features)
    }

    /// # Shapes
    /// returns u8 `[pictures, 3, side, side]`
    fn tensor(&self, pixels: &[u8]) -> Tensor {
        let side = self.model.config().model.vision.image_size;
        Tensor::from_slice(pixels).view([-1, 3, side, side])
    }

    fn matrix(&self, rows: usize, values: Vec<f32>) -> Matrix {
        let width = usize::try_from(self.model.config().model.embed_dim)
            .expect("the width of a model is positive");
        Matrix { rows, width, values }
    }
}

/// Decodes a picture as evaluation sees it.
fn pixels_of(picture: &[u8], max_pixels: u64, side: usize) -> Result<Vec<u8>, &'static str> {
    let decoded = || decode_rgb(picture, max_pixels).map(|image| eval_pixels(&image, side));
    // Decoders are other people's code; what makes one panic is just another unreadable picture.
    match catch_unwind(AssertUnwindSafe(decoded)) {
        Ok(pixels) => pixels.map_err(|error| error.cause()),
        Err(_) => Err("unreadable"),
    }
}

/// A template with the class name in its place.
pub(crate) fn fill(template: &str, class: &str) -> String {
    template.replace("{c}", class).replace("{}", class)
}

/// The different captions in order of first appearance, and every (picture, caption) once.
fn different(said: &[Vec<String>]) -> (Vec<String>, Vec<(usize, usize)>) {
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    let mut captions = Vec::new();
    let mut pairs = Vec::new();
    for (picture, own) in said.iter().enumerate() {
        let first = pairs.len();
        for caption in own {
            let next = captions.len();
            let id = *ids.entry(caption).or_insert_with(|| {
                captions.push(caption.clone());
                next
            });
            if !pairs[first..].contains(&(picture, id)) {
                pairs.push((picture, id));
            }
        }
    }
    (captions, pairs)
}

fn rows(features: &Tensor) -> Vec<f32> {
    let flat = features.to_kind(Kind::Float).flatten(0, -1);
    Vec::<f32>::try_from(flat).expect("features are f32 in host memory")
}

fn size(tensor: &Tensor) -> usize {
    usize::try_from(tensor.size()[0]).expect("sizes are not negative")
}

fn index(value: usize) -> i64 {
    i64::try_from(value).expect("positions fit in 63 bits")
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and lists are JSON")
}
