import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** A program of OpenTelemetry's SDK for Java: `java Program URL NAME` sends a trace, in protobuf and packed. */
class Program {
    /** The environment has no lower case. */
    private static final TextMapGetter<Map<String, String>> ENVIRONMENT = new TextMapGetter<>() {
        @Override
        public Iterable<String> keys(Map<String, String> env) {
            return env.keySet();
        }

        @Override
        public String get(Map<String, String> env, String key) {
            return env == null ? null : env.get(key.toUpperCase());
        }
    };

    public static void main(String[] arguments) {
        OtlpHttpSpanExporter exporter = OtlpHttpSpanExporter.builder()
                .setEndpoint(arguments[0] + "/v1/traces").setCompression("gzip").build();
        Resource resource = Resource.create(Attributes.of(
                AttributeKey.stringKey("service.name"), arguments[1],
                AttributeKey.longKey("process.pid"), ProcessHandle.current().pid()));
        SdkTracerProvider provider = SdkTracerProvider.builder().setResource(resource)
                .addSpanProcessor(BatchSpanProcessor.builder(exporter).build()).build();
        Tracer tracer = provider.get("program");

        // The two lines by which a program falls into the job that started it.
        Context parent = W3CTraceContextPropagator.getInstance().extract(Context.root(), System.getenv(), ENVIRONMENT);
        Span outer = tracer.spanBuilder("outer").setParent(parent).setAttribute("wafers", 25).startSpan();

        Span inner = tracer.spanBuilder("inner").setParent(parent.with(outer)).startSpan();
        inner.recordException(new IllegalStateException("boom"));
        inner.setStatus(StatusCode.ERROR, "it went wrong");
        inner.end();
        outer.end();
        provider.shutdown().join(30, TimeUnit.SECONDS);
    }
}
