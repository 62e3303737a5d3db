//! The router's file: fine centres and the expert of each.

use clade_core::ids::{Digest, Stage};
use clade_core::job::Failure;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::ClusterManifest;
use crate::context::Context;
use crate::stages::commit;

/// What routes pairs and tasks to experts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Router {
    /// `[fine, width]`, unit rows.
    pub(crate) fine_centres: Vec<f32>,
    pub(crate) width: usize,
    /// `[fine]`
    pub(crate) fine_to_expert: Vec<u32>,
}

impl Router {
    /// Writes `fine_centres [fine, width]` f32 and `fine_to_expert [fine]` i64.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let fine = self.fine_to_expert.len();
        let centres: Vec<u8> =
            self.fine_centres.iter().flat_map(|value| value.to_le_bytes()).collect();
        let experts: Vec<u8> = self
            .fine_to_expert
            .iter()
            .flat_map(|&expert| i64::from(expert).to_le_bytes())
            .collect();
        let view = |dtype, shape, bytes| {
            TensorView::new(dtype, shape, bytes).expect("the bytes were made for this shape")
        };
        let tensors = [
            ("fine_centres", view(Dtype::F32, vec![fine, self.width], &centres)),
            ("fine_to_expert", view(Dtype::I64, vec![fine], &experts)),
        ];
        safetensors::serialize(tensors, None).expect("two named tensors always serialise")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let tensor = |name, dtype| {
            let found = file.tensor(name).map_err(|error| error.to_string())?;
            if found.dtype() == dtype {
                Ok(found)
            } else {
                Err(format!("{name} is of type {:?}", found.dtype()))
            }
        };
        let centres = tensor("fine_centres", Dtype::F32)?;
        let experts = tensor("fine_to_expert", Dtype::I64)?;
        let (&[fine, width], &[known]) = (centres.shape(), experts.shape()) else {
            return Err("fine_centres must be [fine, width] and fine_to_expert [fine]".to_owned());
        };
        if fine != known {
            return Err(format!("{fine} fine centres, but experts for {known}"));
        }
        let fine_to_expert = experts
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| {
                u32::try_from(i64::from_le_bytes(*bytes)).map_err(|error| error.to_string())
            })
            .collect::<Result<_, _>>()?;
        let values = centres.data().as_chunks::<4>().0.iter();
        let fine_centres = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Self { fine_centres, width, fine_to_expert })
    }
}

/// Reads the run's router, proved, and the digest of the manifest that names it.
pub(crate) fn read_router(context: &Context) -> Result<(Router, Digest), Failure> {
    let (manifest, digest) = commit::read::<ClusterManifest>(context, Stage::Cluster, 0)?;
    let key = &manifest.router_key;
    let bytes = context.block_on(context.store.get_verified(key, &manifest.router.sha256))?;
    let router = Router::decode(&bytes).map_err(|reason| Failure::Storage {
        message: format!("`{key}` is no router: {reason}"),
    })?;
    Ok((router, digest))
}
