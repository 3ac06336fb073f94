//! Answers to open questions, as records.

use std::collections::HashMap;

use super::{error::RunError, recorded};
use crate::{
    ask::{Answers, Question},
    checkpoint::{RecordKind, TaskRecord},
    dynamic::Compat,
};

/// The open questions among a step's records, by id, each with its task.
pub(crate) fn open_questions(records: &[TaskRecord]) -> Vec<(String, Question)> {
    let answered: HashMap<(&str, &str), bool> = records
        .iter()
        .filter(|record| record.kind == RecordKind::Answer)
        .map(|record| ((record.task.as_str(), record.key.as_str()), !record.body.is_empty()))
        .collect();
    let questions = records.iter().filter(|record| record.kind == RecordKind::Question);
    let open = questions.filter(|record| answered.get(&(record.task.as_str(), record.key.as_str())) != Some(&true));
    open.filter_map(|record| Some((record.task.clone(), serde_json::from_slice(&record.body).ok()?)))
        .collect()
}

/// Answers as records; nothing is written when one of them refers to no open question.
pub(super) fn answer_records(
    records: &[TaskRecord],
    answers: Answers,
    compat: Compat,
) -> Result<Vec<TaskRecord>, RunError> {
    let answers = match compat {
        Compat::Strict => answers,
        Compat::Recorded => recorded::fitting_answers(records, answers)?,
    };
    let open = open_questions(records);
    let ids = || open.iter().map(|(_, question)| question.id.clone()).collect::<Vec<_>>();
    let given = match answers {
        Answers::None => return Ok(Vec::new()),
        Answers::Many(given) => given,
        Answers::One(value) => match open.as_slice() {
            [(_, question)] => vec![(question.id.clone(), value)],
            [] => {
                return Err(RunError::UnknownQuestion {
                    id: String::new(),
                    open: ids(),
                });
            }
            _ => return Err(RunError::AmbiguousAnswer { open: ids() }),
        },
    };
    let record = |(id, value): (String, serde_json::Value)| {
        let Some((task, question)) = open.iter().find(|(_, question)| question.id == id) else {
            return Err(RunError::UnknownQuestion { id, open: ids() });
        };
        let body = value.to_string().into_bytes().into();
        Ok(TaskRecord {
            task: task.clone(),
            kind: RecordKind::Answer,
            key: question.name.clone(),
            body,
        })
    };
    given.into_iter().map(record).collect()
}
