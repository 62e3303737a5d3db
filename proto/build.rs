//! Compiles the protos with protox, so that no system `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=clade");
    let files = protox::compile(
        ["clade/v1/fleet.proto", "clade/v1/run.proto", "clade/v1/worker.proto"],
        ["."],
    )?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
