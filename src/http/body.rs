//! Frames of an answer as the body of a response, one at a time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use futures_util::stream;

use crate::exposition::frame_capacity;
use crate::scrape::Frames;

/// How many frames are kept for the next answer. A connection has two or three in hand at once, so these serve a few
/// scrapers, and hold no more than 2 MiB.
const SPARE_FRAMES: usize = 8;

/// Memory of frames that were sent, to be filled again: fresh memory costs more than what is written into it.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// An empty text with what memory there is.
    pub(super) fn take(&self) -> Frame {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Frame {
            text: text.unwrap_or_default(),
            spare: self.clone(),
        }
    }
}

/// A frame of text, whose memory goes back to where it came from.
pub(super) struct Frame {
    pub(super) text: Vec<u8>,
    spare: Spare,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // One that grew past the ordinary, or never held anything, is not worth keeping.
        if !(1..=2 * frame_capacity()).contains(&self.text.capacity()) {
            return;
        }
        let mut spare = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_FRAMES {
            self.text.clear();
            spare.push(std::mem::take(&mut self.text));
        }
    }
}

/// A body of the frames as they are.
pub(super) fn plain(mut frames: Frames, spare: Spare) -> Body {
    let frames = std::iter::from_fn(move || {
        let mut frame = spare.take();
        frames.fill(&mut frame.text);
        (!frame.text.is_empty()).then(|| Ok::<_, Infallible>(Bytes::from_owner(frame)))
    });
    Body::from_stream(stream::iter(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_frames_is_used_again_and_bounded() {
        let spare = Spare::default();
        let held = || spare.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        drop(spare.take());
        assert_eq!(held(), 0, "there was nothing in it");
        let frames: Vec<Frame> = (0..2 * SPARE_FRAMES)
            .map(|_| {
                let mut frame = spare.take();
                frame.text.extend_from_slice(b"text");
                frame
            })
            .collect();
        drop(frames);
        assert_eq!(held(), SPARE_FRAMES);
        let frame = spare.take();
        assert!(frame.text.is_empty() && frame.text.capacity() > 0);
        assert_eq!(held(), SPARE_FRAMES - 1);
    }
}
