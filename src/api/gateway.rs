//! Which generation of the API is spoken: the one configured, or the newer where the registration holds it.

use std::sync::OnceLock;

use super::transport::Transport;
use super::{Api, Endpoint, Error, Failure, Generation, v1, v3};

/// What the operator says about the generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Fixed(Generation),
    /// The second where the registration holds its customers scope, else the first.
    Auto,
}

/// The way to whichever generation is spoken.
#[derive(Debug)]
pub struct Gateway {
    v1: v1::Client,
    v3: v3::Client,
    choice: Choice,
    found: OnceLock<Generation>,
}

impl Gateway {
    /// A gateway over one transport, which both generations share: host, pace and tokens are the same.
    pub fn new(transport: Transport, choice: Choice, v1_base_path: &str) -> Self {
        Self {
            v1: v1::Client::new(transport.clone(), v1_base_path),
            v3: v3::Client::new(transport),
            choice,
            found: OnceLock::new(),
        }
    }

    /// The client to use. Where the generation is to be found out, the first call that gets a token does so.
    ///
    /// # Errors
    /// Where the generation is still open and no token tells it.
    pub async fn api(&self) -> Result<Api, Failure> {
        let generation = match self.generation() {
            Some(generation) => generation,
            None => {
                let found = self.find().await.map_err(|error| error.at(Endpoint::Token))?;
                *self.found.get_or_init(|| found)
            }
        };
        Ok(match generation {
            Generation::V1 => Api::V1(self.v1.clone()),
            Generation::V3 => Api::V3(self.v3.clone()),
        })
    }

    /// The generation that is spoken, `None` while that is open.
    pub fn generation(&self) -> Option<Generation> {
        match self.choice {
            Choice::Fixed(generation) => Some(generation),
            Choice::Auto => self.found.get().copied(),
        }
    }

    /// The way that requests take.
    pub fn transport(&self) -> &Transport {
        self.v3.transport()
    }

    async fn find(&self) -> Result<Generation, Error> {
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
