//! The shell around the model: agent, ranks, collectives, training and the stages' jobs.
//!
//! An agent offers slots and keeps one child process per rank; a rank does one work, a job or a
//! model, and knows no coordinator. The agent never calls libtorch: a rank that dies in it takes
//! nothing else down.

pub mod agent;
pub mod by_hand;
pub mod collective;
pub mod context;
pub mod embed_classes;
pub mod pipe;
pub mod rank;
pub mod stages;
pub mod train;
