//! Writes a model folder and features computed here, for `tests/golden/check_openclip.py` to compare.
//!
//!     cargo run -p clade-model --example openclip_folder -- FOLDER [preset | model folder]

use std::env;
use std::path::Path;
use std::process::ExitCode;

use clade_model::clip::ClipModel;
use clade_model::config::ClipConfig;
use clade_model::folder;
use clade_model::tch::{Device, Kind, Tensor};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(target) = arguments.next() else {
        eprintln!("usage: openclip_folder FOLDER [preset | model folder]");
        return ExitCode::from(2);
    };
    match write(Path::new(&target), &arguments.next().unwrap_or_else(|| "small".to_owned())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write(target: &Path, source: &str) -> Result<(), Box<dyn std::error::Error>> {
    let model = if Path::new(source).is_dir() {
        folder::load(Path::new(source))?
    } else {
        ClipModel::new(&ClipConfig::preset(source)?, 7)
    };
    folder::save(target, &model)?;
    let size = model.config().model.vision.image_size;
    let context = model.config().model.text.context_length;
    let eot = model.config().model.text.vocab_size - 1;
    let pixels = (Tensor::arange(8 * 3 * size * size, (Kind::Int64, Device::Cpu)) * 7919)
        .remainder(251)
        .to_kind(Kind::Uint8)
        .view([8, 3, size, size]);
    let mut tokens = Vec::new();
    for row in 0..8 {
        let length = 3 + row * (context - 3) / 7;
        tokens.push(eot - 1);
        tokens.extend((1..length - 1).map(|place| 1 + (row * 977 + place * 131) % (eot - 2)));
        tokens.push(eot);
        tokens.resize(usize::try_from((row + 1) * context)?, 0);
    }
    let tokens = Tensor::from_slice(&tokens).view([8, context]);
    let features = [
        ("images", model.embed_pixels(&pixels)),
        ("captions", model.embed_tokens(&tokens)),
        ("pixels", pixels),
        ("tokens", tokens),
    ];
    Tensor::write_safetensors(&features, target.join("features.safetensors"))?;
    Ok(())
}
