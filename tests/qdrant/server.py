"""Qdrant's own engine behind Qdrant's own wire, for tests.

Hosts the gRPC calls that Stepgraph makes, with the servicer classes of the wheel `qdrant-client` over the engine in the
wheel `qdrant-edge-py`. It translates and does nothing else: no filter is added, no default is filled in, and a field that
it does not translate is an error, so that nothing a client asks for can be dropped without a word.

    python server.py --folder DIR [--port PORT]

Collections are kept in DIR and are there again after a restart. The port is written to DIR/port once calls are answered.
"""

import argparse
import json
import os
import threading
from concurrent import futures
from pathlib import Path

import grpc
import qdrant_client.grpc as wire
import qdrant_edge as edge


class Unknown(Exception):
    """A field or a kind of value that is not translated."""


class Missing(Exception):
    """A collection that is not there."""


def only(message, *known):
    """Every field that is set must be one that is translated."""
    unknown = [field.name for field, _ in message.ListFields() if field.name not in known]
    if unknown:
        raise Unknown(f"{message.DESCRIPTOR.full_name}: {', '.join(unknown)}")
    return message


def given(message, field):
    return getattr(message, field) if message.HasField(field) else None


# --- values


def value(message):
    kind = message.WhichOneof("kind")
    if kind in ("integer_value", "double_value", "string_value", "bool_value"):
        return getattr(message, kind)
    if kind == "null_value":
        return None
    if kind == "list_value":
        return [value(item) for item in message.list_value.values]
    if kind == "struct_value":
        return {key: value(item) for key, item in message.struct_value.fields.items()}
    raise Unknown(f"a value of kind {kind}")


def to_value(thing):
    if thing is None:
        return wire.Value(null_value=0)
    if isinstance(thing, bool):
        return wire.Value(bool_value=thing)
    if isinstance(thing, int):
        return wire.Value(integer_value=thing)
    if isinstance(thing, float):
        return wire.Value(double_value=thing)
    if isinstance(thing, str):
        return wire.Value(string_value=thing)
    if isinstance(thing, list):
        return wire.Value(list_value=wire.ListValue(values=[to_value(item) for item in thing]))
    if isinstance(thing, dict):
        return wire.Value(struct_value=wire.Struct(fields={key: to_value(item) for key, item in thing.items()}))
    raise Unknown(f"a value of type {type(thing)}")


def point_id(message):
    only(message, "num", "uuid")
    return message.num if message.WhichOneof("point_id_options") == "num" else message.uuid


def to_point_id(thing):
    return wire.PointId(num=thing) if isinstance(thing, int) else wire.PointId(uuid=str(thing))


def dense_or_sparse(message):
    kind = message.WhichOneof("vector" if "vector" in message.DESCRIPTOR.oneofs_by_name else "variant")
    if kind == "dense":
        return list(only(message.dense, "data").data)
    if kind == "sparse":
        only(message.sparse, "values", "indices")
        return edge.SparseVector(indices=list(message.sparse.indices), values=list(message.sparse.values))
    raise Unknown(f"a vector of kind {kind}")


def named_vectors(message):
    only(message, "vectors")
    only(message.vectors, "vectors")
    return {name: dense_or_sparse(only(vector, "dense", "sparse")) for name, vector in message.vectors.vectors.items()}


def to_vectors(thing):
    if thing is None:
        return None
    named = {}
    for name, vector in thing.items():
        if isinstance(vector, edge.SparseVector):
            sparse = wire.SparseVector(values=vector.values, indices=vector.indices)
            named[name] = wire.VectorOutput(sparse=sparse)
        else:
            named[name] = wire.VectorOutput(dense=wire.DenseVector(data=vector))
    return wire.VectorsOutput(vectors=wire.NamedVectorsOutput(vectors=named))


# --- filters


def condition(message):
    kind = message.WhichOneof("condition_one_of")
    if kind == "has_id":
        return edge.HasIdCondition(point_ids={point_id(one) for one in message.has_id.has_id})
    if kind == "field":
        only(message.field, "key", "match")
        match = message.field.match
        how = match.WhichOneof("match_value")
        if how in ("keyword", "integer", "boolean"):
            return edge.FieldCondition(key=message.field.key, match=edge.MatchValue(getattr(match, how)))
        if how == "keywords":
            return edge.FieldCondition(key=message.field.key, match=edge.MatchAny(list(match.keywords.strings)))
        raise Unknown(f"a match of kind {how}")
    if kind == "is_empty":
        return edge.IsEmptyCondition(key=message.is_empty.key)
    raise Unknown(f"a condition of kind {kind}")


def filter_of(message):
    if message is None:
        return None
    only(message, "must", "must_not", "should")
    lists = {name: [condition(one) for one in getattr(message, name)] for name in ("must", "must_not", "should")}
    return edge.Filter(**{name: conditions for name, conditions in lists.items() if conditions})


# --- queries


def scoring(query, using):
    if query is None:
        return None
    kind = query.WhichOneof("variant")
    if kind == "nearest":
        return edge.Query.Nearest(dense_or_sparse(only(query.nearest, "dense", "sparse")), using=using)
    if kind == "rrf":
        only(query.rrf, "k", "weights")
        if not query.rrf.HasField("k"):
            raise Unknown("a fusion without its constant")
        weights = list(query.rrf.weights) or None
        return edge.Fusion.Rrf(k=query.rrf.k, weights=weights)
    raise Unknown(f"a query of kind {kind}")


def params_of(message):
    if message is None:
        return None
    only(message, "hnsw_ef", "exact", "idf")
    asked = {name: getattr(message, name) for name in ("hnsw_ef", "exact") if message.HasField(name)}
    if message.HasField("idf"):
        only(message.idf, "corpus")
        asked["idf"] = edge.IdfParams(corpus=filter_of(given(message.idf, "corpus")))
    return edge.SearchParams(**asked)


def prefetch_of(message):
    only(message, "query", "using", "filter", "params", "limit")
    return edge.Prefetch(
        limit=message.limit,
        query=scoring(given(message, "query"), given(message, "using")),
        params=params_of(given(message, "params")),
        filter=filter_of(given(message, "filter")),
    )


def payload_selector(message):
    if message is None:
        return False
    kind = message.WhichOneof("selector_options")
    if kind == "enable":
        return message.enable
    if kind == "include":
        return list(message.include.fields)
    raise Unknown(f"a payload selector of kind {kind}")


def vectors_selector(message):
    if message is None:
        return False
    kind = message.WhichOneof("selector_options")
    if kind == "enable":
        return message.enable
    if kind == "include":
        return list(message.include.names)
    raise Unknown(f"a vector selector of kind {kind}")


def query_of(message):
    only(
        message,
        "collection_name", "prefetch", "query", "using", "filter", "params", "limit", "with_payload", "with_vectors",
    )  # fmt: skip
    return edge.QueryRequest(
        limit=message.limit,
        query=scoring(given(message, "query"), given(message, "using")),
        prefetches=[prefetch_of(one) for one in message.prefetch],
        with_vector=vectors_selector(given(message, "with_vectors")),
        with_payload=payload_selector(given(message, "with_payload")),
        filter=filter_of(given(message, "filter")),
        params=params_of(given(message, "params")),
    )


def scored(point):
    return wire.ScoredPoint(
        id=to_point_id(point.id),
        payload={key: to_value(thing) for key, thing in (point.payload or {}).items()},
        score=point.score,
        version=point.version,
        vectors=to_vectors(point.vector),
    )


def retrieved(record):
    return wire.RetrievedPoint(
        id=to_point_id(record.id),
        payload={key: to_value(thing) for key, thing in (record.payload or {}).items()},
        vectors=to_vectors(record.vector),
    )


# --- collections

DISTANCES = {wire.Cosine: edge.Distance.Cosine, wire.Dot: edge.Distance.Dot, wire.Euclid: edge.Distance.Euclid}
MODES = {
    wire.UpdateMode.Upsert: edge.UpdateMode.Upsert,
    wire.UpdateMode.InsertOnly: edge.UpdateMode.InsertOnly,
    wire.UpdateMode.UpdateOnly: edge.UpdateMode.UpdateOnly,
}
# What a server has unless it is told; the engine wants each said.
EF_CONSTRUCT, FULL_SCAN_THRESHOLD = 100, 10_000


def config_of(message):
    only(message, "collection_name", "hnsw_config", "vectors_config", "sparse_vectors_config", "metadata")
    only(message.hnsw_config, "m", "payload_m")
    only(message.vectors_config, "params_map")
    vectors = {}
    for name, params in message.vectors_config.params_map.map.items():
        only(params, "size", "distance")
        vectors[name] = edge.EdgeVectorParams(size=params.size, distance=DISTANCES[params.distance])
    sparse = {}
    for name, params in message.sparse_vectors_config.map.items():
        only(params, "modifier")
        modifier = edge.Modifier.Idf if params.modifier == wire.Modifier.Idf else None
        sparse[name] = edge.EdgeSparseVectorParams(modifier=modifier)
    hnsw = edge.HnswIndexConfig(
        m=message.hnsw_config.m,
        ef_construct=EF_CONSTRUCT,
        full_scan_threshold=FULL_SCAN_THRESHOLD,
        payload_m=given(message.hnsw_config, "payload_m"),
    )
    return edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse, hnsw_config=hnsw)


class Engine:
    """The collections of a folder: a shard each, and beside it the request it was made by."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()
        self.shards = {}
        self.requests = {}
        for place in folder.iterdir():
            if (place / "request").is_file():
                request = wire.CreateCollection.FromString((place / "request").read_bytes())
                self.requests[place.name] = request
                self.shards[place.name] = edge.EdgeShard.load(str(place / "shard"))

    def shard(self, name):
        try:
            return self.shards[name]
        except KeyError:
            raise Missing(f"collection `{name}` doesn't exist") from None

    def create(self, request):
        name = request.collection_name
        if os.sep in name or name.startswith("."):
            raise Unknown(f"a collection of the name `{name}`")
        with self.lock:
            if name in self.shards:
                return False
            config = config_of(request)
            place = self.folder / name
            (place / "shard").mkdir(parents=True)
            self.shards[name] = edge.EdgeShard.create(str(place / "shard"), config)
            (place / "request").write_bytes(request.SerializeToString())
            self.requests[name] = request
            return True


# --- services


# Where each call is written down, for tests of what is sent beside a request: its name, its trace, whose it is.
CALLS = None
# Payload keys that hold the name of a tenant.
OWNERS = ("client_id", "knowledge_base_of")


def owners(message):
    """The tenants that a request names, in its filters and in the points that it writes."""
    if isinstance(message, wire.FieldCondition):
        return {message.match.keyword, *message.match.keywords.strings} - {""} if message.key in OWNERS else set()
    if isinstance(message, wire.PointStruct):
        return {message.payload[key].string_value for key in OWNERS if key in message.payload}
    named = set()
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for one in [value] if hasattr(value, "ListFields") else value:
                named |= owners(one)
    return named


def note(call, request, context):
    sent = [value for key, value in context.invocation_metadata() if key == "traceparent"]
    with CALLS.open("a") as file:
        file.write("\t".join([call.__name__, " ".join(sent), " ".join(sorted(owners(request)))]) + "\n")


def translated(call):
    """Says what went wrong as a server does."""

    def answer(self, request, context):
        note(call, request, context)
        try:
            return call(self, request, context)
        except Unknown as error:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"not translated: {error}")
        except Missing as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except (edge.EdgeError if hasattr(edge, "EdgeError") else Exception) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{type(error).__name__}: {error}")

    return answer


class Qdrant(wire.QdrantServicer):
    @translated
    def HealthCheck(self, request, context):
        return wire.HealthCheckReply(title="qdrant engine for tests", version="1.20.0")


class Collections(wire.CollectionsServicer):
    def __init__(self, engine):
        self.engine = engine

    @translated
    def CollectionExists(self, request, context):
        exists = only(request, "collection_name").collection_name in self.engine.shards
        return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=exists))

    @translated
    def List(self, request, context):
        only(request)
        names = sorted(self.engine.shards)
        return wire.ListCollectionsResponse(collections=[wire.CollectionDescription(name=name) for name in names])

    @translated
    def Create(self, request, context):
        if not self.engine.create(request):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"collection `{request.collection_name}` already exists")
        return wire.CollectionOperationResponse(result=True)

    @translated
    def Get(self, request, context):
        name = only(request, "collection_name").collection_name
        info = self.engine.shard(name).info()
        made = self.engine.requests[name]
        schema = {}
        for field, index in info.payload_schema.items():
            schema[field] = wire.PayloadSchemaInfo(data_type=wire.PayloadSchemaType.Keyword, points=index.points)
            params = wire.KeywordIndexParams(is_tenant=bool(index.params and index.params.is_tenant))
            schema[field].params.keyword_index_params.CopyFrom(params)
        params = wire.CollectionParams(
            vectors_config=made.vectors_config, sparse_vectors_config=made.sparse_vectors_config
        )
        config = wire.CollectionConfig(params=params, hnsw_config=made.hnsw_config, metadata=made.metadata)
        result = wire.CollectionInfo(
            status=wire.CollectionStatus.Green,
            segments_count=info.segments_count,
            points_count=info.points_count,
            config=config,
            payload_schema=schema,
        )
        return wire.GetCollectionInfoResponse(result=result)

    @translated
    def Delete(self, request, context):
        name = only(request, "collection_name").collection_name
        with self.engine.lock:
            shard = self.engine.shards.pop(name, None)
            if shard is not None:
                shard.close()
                (self.engine.folder / name / "request").unlink()
                (self.engine.folder / name).rename(self.engine.folder / f".gone-{len(os.listdir(self.engine.folder))}")
        return wire.CollectionOperationResponse(result=shard is not None)


class Points(wire.PointsServicer):
    def __init__(self, engine):
        self.engine = engine

    def update(self, name, operation):
        self.engine.shard(name).update(operation)
        result = wire.UpdateResult(operation_id=0, status=wire.UpdateStatus.Completed)
        return wire.PointsOperationResponse(result=result)

    @translated
    def Upsert(self, request, context):
        only(request, "collection_name", "wait", "points", "update_mode")
        points = [
            edge.Point(
                id=point_id(only(point, "id", "payload", "vectors").id),
                vector=named_vectors(point.vectors),
                payload={key: value(thing) for key, thing in point.payload.items()},
            )
            for point in request.points
        ]
        mode = MODES[request.update_mode] if request.HasField("update_mode") else None
        return self.update(request.collection_name, edge.UpdateOperation.upsert_points(points, update_mode=mode))

    @translated
    def Delete(self, request, context):
        only(request, "collection_name", "wait", "points")
        kind = request.points.WhichOneof("points_selector_one_of")
        if kind == "filter":
            operation = edge.UpdateOperation.delete_points_by_filter(filter_of(request.points.filter))
        elif kind == "points":
            operation = edge.UpdateOperation.delete_points([point_id(one) for one in request.points.points.ids])
        else:
            raise Unknown(f"a selector of kind {kind}")
        return self.update(request.collection_name, operation)

    @translated
    def CreateFieldIndex(self, request, context):
        only(request, "collection_name", "wait", "field_name", "field_type", "field_index_params")
        if request.field_type != wire.FieldType.FieldTypeKeyword:
            raise Unknown("an index that is not of keywords")
        only(request.field_index_params, "keyword_index_params")
        params = only(request.field_index_params.keyword_index_params, "is_tenant")
        schema = edge.KeywordIndexParams(is_tenant=given(params, "is_tenant"))
        return self.update(
            request.collection_name, edge.UpdateOperation.create_field_index(request.field_name, schema)
        )

    @translated
    def Get(self, request, context):
        only(request, "collection_name", "ids", "with_payload", "with_vectors")
        records = self.engine.shard(request.collection_name).retrieve(
            [point_id(one) for one in request.ids],
            with_payload=payload_selector(given(request, "with_payload")),
            with_vector=vectors_selector(given(request, "with_vectors")),
        )
        return wire.GetResponse(result=[retrieved(record) for record in records])

    @translated
    def Count(self, request, context):
        only(request, "collection_name", "filter", "exact")
        asked = edge.CountRequest(exact=request.exact, filter=filter_of(given(request, "filter")))
        count = self.engine.shard(request.collection_name).count(asked)
        return wire.CountResponse(result=wire.CountResult(count=count))

    @translated
    def Scroll(self, request, context):
        only(request, "collection_name", "filter", "offset", "limit", "with_payload", "with_vectors")
        offset = given(request, "offset")
        records, following = self.engine.shard(request.collection_name).scroll(
            edge.ScrollRequest(
                offset=None if offset is None else point_id(offset),
                limit=given(request, "limit"),
                filter=filter_of(given(request, "filter")),
                with_payload=payload_selector(given(request, "with_payload")),
                with_vector=vectors_selector(given(request, "with_vectors")),
            )
        )
        following = None if following is None else to_point_id(following)
        return wire.ScrollResponse(result=[retrieved(record) for record in records], next_page_offset=following)

    @translated
    def Query(self, request, context):
        found = self.engine.shard(request.collection_name).query(query_of(request))
        return wire.QueryResponse(result=[scored(point) for point in found])

    @translated
    def QueryBatch(self, request, context):
        only(request, "collection_name", "query_points")
        shard = self.engine.shard(request.collection_name)
        found = [shard.query(query_of(one)) for one in request.query_points]
        batches = [wire.BatchResult(result=[scored(point) for point in points]) for points in found]
        return wire.QueryBatchResponse(result=batches)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    global CALLS
    CALLS = args.folder / "calls"
    engine = Engine(args.folder)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    wire.add_QdrantServicer_to_server(Qdrant(), server)
    wire.add_CollectionsServicer_to_server(Collections(engine), server)
    wire.add_PointsServicer_to_server(Points(engine), server)
    port = server.add_insecure_port(f"127.0.0.1:{args.port}")
    server.start()
    (args.folder / "port.new").write_text(json.dumps(port))
    (args.folder / "port.new").rename(args.folder / "port")
    server.wait_for_termination()


if __name__ == "__main__":
    main()
