//! Everything of Clade that computes with tensors, and nothing else.
//!
//! CLIP towers, tokenizer and pixels as OpenCLIP defines them; the distributed contrastive loss and
//! its optimizer over flat buffers; the sentence encoder; k-means; zero-shot metrics. Weights carry
//! OpenCLIP's checkpoint keys, so they go both ways without conversion.
//!
//! What this crate refuses: networks, clocks, global random state, and knowledge of runs, gangs or
//! stores. Every random choice derives from a seed in the arguments. CLIP computes in f32 or bf16, on
//! the CPU or a GPU (see [`device`]); everything else in f32 on the CPU.
//!
//! Shape mistakes of a caller may panic (the rank dies, the gang restarts); whatever is read from
//! disk is checked and answered with an error that names the file and the tensor or key.

pub mod adamw;
pub mod bert;
pub mod clip;
pub mod collective;
pub mod config;
pub mod contrastive;
pub mod device;
pub mod fallible;
pub mod flat;
pub mod folder;
pub mod kmeans;
pub mod memory;
pub mod nccl;
pub mod pixels;
pub mod stacks;
pub mod text;
pub mod threads;
pub mod tokenizer;
pub mod train;
pub mod transformer;
pub mod vision;
pub mod weights;
pub mod zeroshot;

mod chain;
mod init;
mod native;
mod rng;

pub use tch;
