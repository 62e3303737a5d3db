//! Golden values from open_clip; `tests/golden/make_clip.py` holds the PyTorch lines.

use std::path::PathBuf;

use super::*;
use crate::config::Activation;
use crate::folder;

type Named = Vec<(String, Tensor)>;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden_tensor(name: &str) -> Tensor {
    let found = Tensor::read_safetensors(golden("clip.safetensors")).unwrap();
    found.into_iter().find(|(it, _)| it == name).expect("a golden tensor").1
}

fn largest_difference(one: &Tensor, other: &Tensor) -> f64 {
    assert_eq!(one.size(), other.size());
    (one - other).abs().max().double_value(&[])
}

#[test]
fn features_equal_those_of_open_clip() {
    let plain = folder::load(&golden("micro")).unwrap();
    let mut config = plain.config().clone();
    config.model.vision.blocks.activation = Activation::QuickGelu;
    config.model.text.blocks.activation = Activation::QuickGelu;
    let quick = ClipModel::load(&config, &golden("micro").join(folder::WEIGHTS_FILE)).unwrap();
    for (model, images, captions) in
        [(plain, "images", "captions"), (quick, "images_quick", "captions_quick")]
    {
        let pixels = model.normalise(&golden_tensor("pixels"));
        let off = largest_difference(&model.encode_image(&pixels, false), &golden_tensor(images));
        assert!(off < 1e-5, "{images} are off by {off}");
        let tokens = golden_tensor("tokens");
        let off = largest_difference(&model.encode_text(&tokens, false), &golden_tensor(captions));
        assert!(off < 1e-5, "{captions} are off by {off}");
    }
}

#[test]
fn every_kind_of_tower_has_the_features_of_open_clip() {
    let configs: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/golden/variants.json")).unwrap();
    let all = Tensor::read_safetensors(golden("variants.safetensors")).unwrap();
    let find = |name: &str| &all.iter().find(|(it, _)| it == name).expect("a golden tensor").1;
    let configs = configs.as_object().unwrap();
    assert!(configs.len() >= 4);
    for (name, config) in configs {
        let config = ClipConfig::from_json(&config.to_string()).unwrap();
        assert_eq!(ClipConfig::from_json(&config.to_json()).unwrap(), config, "{name}");
        let prefix = format!("{name}/weights/");
        let weights = all.iter().filter_map(|(key, tensor)| {
            Some((key.strip_prefix(&prefix)?.to_owned(), tensor.shallow_clone()))
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        Tensor::write_safetensors(&weights.collect::<Named>(), &path).unwrap();
        let model = ClipModel::load(&config, &path).unwrap();
        let found = model.encode_image(&model.normalise(find("pixels")), false);
        let off = largest_difference(&found, find(&format!("{name}/images")));
        assert!(off < 1e-5, "{name}: pictures are off by {off}");
        let found = model.encode_text(find("tokens"), false);
        let off = largest_difference(&found, find(&format!("{name}/captions")));
        assert!(off < 1e-5, "{name}: captions are off by {off}");
        assert_eq!(ClipModel::new(&config, 1).parameter_count(), model.parameter_count());
    }
}

#[test]
fn the_presets_have_the_known_numbers_of_parameters() {
    for (name, millions) in [("ViT-B-32", 151.3), ("ViT-B-16", 149.6), ("ViT-L-14", 427.6)] {
        let total = layout(&ClipConfig::preset(name).unwrap().model).total() as f64 / 1e6;
        assert!((total - millions).abs() < 0.05, "{name} has {total} M");
    }
}

#[test]
fn a_model_depends_on_its_seed_alone() {
    let config = ClipConfig::preset("tiny").unwrap();
    let (one, same) = (ClipModel::new(&config, 1), ClipModel::new(&config, 1));
    assert!(one.params().values() == same.params().values());
    let other = ClipModel::new(&config, 2);
    assert!(one.params().values() != other.params().values());
    assert!((one.logit_scale() - (1.0_f64 / 0.07).ln()).abs() < 1e-6);
}

#[test]
fn a_folder_saved_and_loaded_is_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = ClipModel::new(&ClipConfig::preset("tiny").unwrap(), 4);
    folder::save(dir.path(), &model).unwrap();
    let back = folder::load(dir.path()).unwrap();
    assert_eq!(back.config(), model.config());
    assert!(back.params().values() == model.params().values());
}

#[test]
fn a_tensor_that_is_missing_extra_or_misshapen_is_named() {
    let micro = golden("micro").join(folder::WEIGHTS_FILE);
    let config = folder::load(&golden("micro")).unwrap().config().clone();
    let refused = |change: &dyn Fn(&mut Named)| {
        let mut tensors = Tensor::read_safetensors(&micro).unwrap();
        change(&mut tensors);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        Tensor::write_safetensors(&tensors, &path).unwrap();
        ClipModel::load(&config, &path).unwrap_err().to_string()
    };
    let missing = refused(&|tensors| tensors.retain(|(name, _)| name != "visual.proj"));
    assert!(missing.contains("tensor visual.proj is missing"), "{missing}");
    let extra = refused(&|tensors| {
        tensors.push(("visual.bonus".to_owned(), Tensor::from_slice(&[1.0_f32])));
    });
    assert!(extra.contains("visual.bonus does not belong"), "{extra}");
    let misshapen = refused(&|tensors| {
        for (name, tensor) in tensors {
            if name == "ln_final.bias" {
                *tensor = Tensor::from_slice(&[1.0_f32; 3]);
            }
        }
    });
    assert!(misshapen.contains("ln_final.bias has shape [3], expected [16]"), "{misshapen}");
    let infinite = refused(&|tensors| {
        for (name, tensor) in tensors {
            if name == "logit_scale" {
                *tensor = Tensor::from(f32::INFINITY);
            }
        }
    });
    assert!(infinite.contains("logit_scale holds a value that is not finite"), "{infinite}");
}

#[test]
fn half_precision_weights_are_widened() {
    let dir = tempfile::tempdir().unwrap();
    let config = folder::load(&golden("micro")).unwrap().config().clone();
    let full = Tensor::read_safetensors(golden("micro").join(folder::WEIGHTS_FILE)).unwrap();
    for kind in [Kind::BFloat16, Kind::Half] {
        let halves: Vec<(String, Tensor)> =
            full.iter().map(|(name, tensor)| (name.clone(), tensor.to_kind(kind))).collect();
        let path = dir.path().join("half.safetensors");
        Tensor::write_safetensors(&halves, &path).unwrap();
        let model = ClipModel::load(&config, &path).unwrap();
        let expected = full.iter().find(|(name, _)| name == "visual.proj").unwrap().1.to_kind(kind);
        let found = model.params().leaf("visual.proj");
        assert_eq!(largest_difference(&found, &expected.to_kind(Kind::Float)), 0.0, "{kind:?}");
    }
}
