//! Decides a run of drafts.

use std::collections::HashMap;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::Core;
use crate::ledger::{Hash, Linked, commitment, event_hash, event_id};

/// The places of fields in the named tuples of `core/model.py`.
mod field {
    pub const DRAFT_RECEIVER: usize = 0;
    pub const DRAFT_OCCURRED_AT: usize = 4;
    pub const DRAFT_DEDUPE: usize = 8;
    pub const DRAFT_SALT: usize = 9;
    pub const DRAFT_COMMITMENT: usize = 10;
    pub const DRAFT_IDENTITY: usize = 11;
    pub const DRAFT_CANONICAL: usize = 12;
    pub const DRAFT_WARNINGS: usize = 14;
    pub const DRAFT_ATTRIBUTES: usize = 15;
    pub const DRAFT_REFUSED: usize = 16;
    pub const LINK_SALT: usize = 4;
    pub const LINK_COMMITMENT: usize = 5;
}

pub fn hash_of(bytes: &Bound<'_, PyBytes>) -> PyResult<Hash> {
    bytes.as_bytes().try_into().map_err(|_| PyTypeError::new_err("a hash has 32 bytes"))
}

/// A run of drafts that is being decided.
pub struct Run<'a, 'py> {
    core: &'a Core,
    py: Python<'py>,
    known: &'a Bound<'py, PyDict>,
    workspace_id: &'a Bound<'py, PyAny>,
    sequence: i64,
    clock: i64,
    last: Hash,
    /// The links that this run made, by their dedupes.
    new: HashMap<[u8; 16], (Bound<'py, PyAny>, Bound<'py, PyAny>)>,
    outcomes: Bound<'py, PyList>,
    rows: Bound<'py, PyList>,
}

impl<'a, 'py> Run<'a, 'py> {
    /// Begin a run after the event with this hash. The first new event is linked at `clock`.
    pub fn new(
        core: &'a Core,
        known: &'a Bound<'py, PyDict>,
        workspace_id: &'a Bound<'py, PyAny>,
        sequence: i64,
        clock: i64,
        last: Hash,
    ) -> Self {
        let py = known.py();
        let (outcomes, rows) = (PyList::empty(py), PyList::empty(py));
        Run { core, py, known, workspace_id, sequence, clock, last, new: HashMap::new(), outcomes, rows }
    }

    /// Return the outcomes, the rows and the last hash. `known` is changed only here.
    pub fn finish(self) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyBytes>)> {
        for (dedupe, link) in self.new.values() {
            self.known.set_item(dedupe, link)?;
        }
        Ok((self.outcomes, self.rows, PyBytes::new(self.py, &self.last)))
    }

    /// Decide a slot. False if it is not ordinary.
    pub fn decide(&mut self, slot: &Bound<'py, PyAny>, random: [u8; 8], most: i64) -> PyResult<bool> {
        let (py, core) = (self.py, self.core);
        if !slot.get_type().is(&core.draft) {
            return Ok(false);
        }
        let draft = slot.cast::<PyTuple>()?;
        let dedupe = draft.get_item(field::DRAFT_DEDUPE)?;
        let warnings = draft.get_item(field::DRAFT_WARNINGS)?;
        let name: Option<[u8; 16]> = if dedupe.is_none() {
            None
        } else {
            let bytes = dedupe.cast::<PyBytes>()?.as_bytes();
            Some(bytes.try_into().map_err(|_| PyTypeError::new_err("a dedupe has 16 bytes"))?)
        };
        if let Some(name) = &name
            && let Some(earlier) = self.holder(name, &dedupe)?
        {
            let earlier = earlier.cast_into::<PyTuple>()?;
            if !is_same(draft, &earlier)? {
                return Ok(false);
            }
            let status = core.duplicate.bind(py).clone();
            self.tell(status, earlier.into_any(), warnings)?;
            return Ok(true);
        }
        if !draft.get_item(field::DRAFT_REFUSED)?.is_none() || self.rows.len() as i64 >= most {
            return Ok(false);
        }
        // Past the largest sequence and the largest time Python decides.
        let place = self.sequence.checked_add(1).zip(event_id(self.clock, random));
        let Some((sequence, id)) = place.filter(|(sequence, _)| *sequence >= 0) else { return Ok(false) };
        let link = self.link(draft, sequence, &id)?;
        self.tell(core.accepted.bind(py).clone(), link.clone(), warnings)?;
        if let Some(name) = name {
            self.new.insert(name, (dedupe, link));
        }
        Ok(true)
    }

    /// Return the link of the event that has an identity.
    fn holder(&self, name: &[u8; 16], dedupe: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.new.get(name) {
            Some((_, link)) => Ok(Some(link.clone())),
            None => self.known.get_item(dedupe),
        }
    }

    fn tell(&self, status: Bound<'py, PyAny>, link: Bound<'py, PyAny>, warnings: Bound<'py, PyAny>) -> PyResult<()> {
        let none = self.py.None().into_bound(self.py);
        let outcome = self.core.tuple(self.py, &self.core.outcome, [status, link, none, warnings])?;
        self.outcomes.append(outcome)
    }

    /// Add the row of a draft, and return its link.
    fn link(&mut self, draft: &Bound<'py, PyTuple>, sequence: i64, id: &[u8; 16]) -> PyResult<Bound<'py, PyAny>> {
        let (py, core) = (self.py, self.core);
        let [receiver, identity, commitment] =
            [field::DRAFT_RECEIVER, field::DRAFT_IDENTITY, field::DRAFT_COMMITMENT].map(|place| draft.get_item(place));
        let (receiver, identity, commitment) = (receiver?, identity?, commitment?);
        let identity = identity.cast::<PyBytes>()?.as_bytes();
        let sealed = commitment.cast::<PyBytes>()?.as_bytes();
        if !matches!(identity.len(), 0 | 32) || sealed.len() != 32 {
            return Err(PyTypeError::new_err("a hash has 32 bytes"));
        }
        self.last = event_hash(&Linked {
            previous: &self.last,
            sequence: sequence as u64,
            created_at: self.clock,
            id,
            identity,
            commitment: sealed,
            receiver: receiver.cast::<PyString>()?.to_str()?,
        });
        let id = PyBytes::new(py, id).into_any();
        let hash = PyBytes::new(py, &self.last).into_any();
        let number = sequence.into_pyobject(py)?.into_any();
        let created_at = self.clock.into_pyobject(py)?.into_any();
        let item = |place: usize| draft.get_item(place);
        let row = core.tuple(
            py,
            &core.stored_event,
            [
                self.workspace_id.clone(),
                id.clone(),
                number.clone(),
                created_at.clone(),
                receiver,
                item(1)?,
                item(2)?,
                item(3)?,
                item(4)?,
                item(5)?,
                item(6)?,
                item(7)?,
                item(field::DRAFT_DEDUPE)?,
                item(field::DRAFT_SALT)?,
                commitment.clone(),
                hash.clone(),
                item(field::DRAFT_ATTRIBUTES)?,
            ],
        )?;
        self.rows.append(row)?;
        self.sequence = sequence;
        self.clock += 1; // there was an id for it, which has fewer bits
        let salt = item(field::DRAFT_SALT)?;
        let occurred_at = item(field::DRAFT_OCCURRED_AT)?;
        core.tuple(py, &core.link, [id, number, created_at, hash, salt, commitment, occurred_at])
    }
}

/// Whether a draft has the content of a stored event.
fn is_same(draft: &Bound<'_, PyTuple>, earlier: &Bound<'_, PyTuple>) -> PyResult<bool> {
    let [content, salt, sealed] = [
        draft.get_item(field::DRAFT_CANONICAL)?,
        earlier.get_item(field::LINK_SALT)?,
        earlier.get_item(field::LINK_COMMITMENT)?,
    ];
    let (salt, content) = (salt.cast::<PyBytes>()?.as_bytes(), content.cast::<PyBytes>()?.as_bytes());
    Ok(commitment(salt, content) == sealed.cast::<PyBytes>()?.as_bytes())
}
