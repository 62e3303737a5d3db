//! `expertSteps`: a number, or `{proportional: PAIRS}`, with errors that name the key.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::ExpertSteps;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proportional {
    proportional: u64,
}

struct Steps;

impl<'de> Visitor<'de> for Steps {
    type Value = ExpertSteps;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of steps, or {proportional: PAIRS}")
    }

    fn visit_u64<E: Error>(self, steps: u64) -> Result<ExpertSteps, E> {
        Ok(ExpertSteps::Equal(steps))
    }

    fn visit_i64<E: Error>(self, steps: i64) -> Result<ExpertSteps, E> {
        u64::try_from(steps).map(ExpertSteps::Equal).map_err(|_| {
            E::invalid_value(serde::de::Unexpected::Signed(steps), &"a number of steps")
        })
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<ExpertSteps, M::Error> {
        let Proportional { proportional } =
            Proportional::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ExpertSteps::Proportional { proportional })
    }
}

impl<'de> Deserialize<'de> for ExpertSteps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Steps)
    }
}
