//! What a worker promises, tried on the real program.

mod agent;
mod desk;
mod gang;
mod lab;
