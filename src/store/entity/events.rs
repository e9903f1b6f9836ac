//! The events of both logs.

use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    pub epoch: i64,
    pub id: Uuid,
    pub r#type: String,
    pub owner: Option<String>,
    pub secret_id: Option<Uuid>,
    pub sequence: Option<i64>,
    pub version: Option<i64>,
    pub version_id: Option<Uuid>,
    pub occurred_at: i64,
    pub body: Vec<u8>,
    pub hash: Vec<u8>,
    pub traceparent: Option<String>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
