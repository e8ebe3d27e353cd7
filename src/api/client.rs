//! Selects the API version. In `auto` mode, selects v3 if the registration has the v3 permission for customers, and v1
//! if it has only the v1 permission.

use std::sync::OnceLock;

use super::transport::Transport;
use super::{Api, Endpoint, Error, Failure, Generation, v1, v3};
use crate::domain::GenerationChoice;

/// Client that selects the API version.
#[derive(Debug)]
pub struct ApiClient {
    v1: v1::Client,
    v3: v3::Client,
    choice: GenerationChoice,
    selected: OnceLock<Generation>,
}

impl ApiClient {
    /// Creates a client. Both API versions share the transport, and with it the host, the rate limiter and the tokens.
    pub fn new(transport: Transport, choice: GenerationChoice, v1_base_path: &str) -> Self {
        Self {
            v1: v1::Client::new(transport.clone(), v1_base_path),
            v3: v3::Client::new(transport),
            choice,
            selected: OnceLock::new(),
        }
    }

    /// Copies the API version that an earlier client of the same API selected.
    pub fn carry_over(&self, earlier: &Self) {
        if let Some(generation) = earlier.selected.get() {
            let _ = self.selected.set(*generation);
        }
    }

    /// Returns the client to use. In `auto` mode, the first call that gets a token selects the API version.
    ///
    /// # Errors
    /// Returns an error if no API version is selected yet and no token can be fetched.
    pub async fn api(&self) -> Result<Api, Failure> {
        let generation = match self.generation() {
            Some(generation) => generation,
            None => {
                let generation = self.select_generation().await;
                let generation = generation.map_err(|error| error.at(Endpoint::Token))?;
                *self.selected.get_or_init(|| generation)
            }
        };
        Ok(match generation {
            Generation::V1 => Api::V1(self.v1.clone()),
            Generation::V3 => Api::V3(self.v3.clone()),
        })
    }

    /// Returns the selected API version, or `None` if none is selected yet.
    pub fn generation(&self) -> Option<Generation> {
        match self.choice {
            GenerationChoice::Fixed(generation) => Some(generation),
            GenerationChoice::Auto => self.selected.get().copied(),
        }
    }

    /// Returns the transport that sends requests.
    pub fn transport(&self) -> &Transport {
        self.v3.transport()
    }

    async fn select_generation(&self) -> Result<Generation, Error> {
        let tokens = self.transport().tokens();
        match tokens.token(v3::scope::CUSTOMERS).await {
            Ok(_) => return Ok(Generation::V3),
            Err(Error::NotPermitted(_)) => {}
            Err(error) => return Err(error),
        }
        match tokens.token(v1::scope::CUSTOMERS).await {
            Ok(_) => Ok(Generation::V1),
            Err(Error::NotPermitted(_)) => Err(Error::NotPermitted(v3::scope::CUSTOMERS)),
            Err(error) => Err(error),
        }
    }
}
