/* test_cpp - monitoring_sdk.hpp against a sidecar of real sockets. */
#include "monitoring_sdk.hpp"

extern "C" {
#include "sidecar.h"
}

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

static void check_that(bool truth, int line, const char *what) {
    if (truth)
        return;
    std::fprintf(stderr, "%s:%d: %s\n", __FILE__, line, what);
    _exit(1);
}
#define CHECK(truth) check_that(truth, __LINE__, #truth)

static bool arrived(sidecar *sidecar, const std::string &text) {
    std::size_t at = 0;
    return sidecar_find(sidecar, text.c_str(), &at) != nullptr;
}

static int code_of(monitoring::sdk &sdk, std::string_view level) {
    try {
        sdk.log_event(level, "x");
    } catch (const monitoring::error &error) {
        return error.code();
    }
    return 0;
}

static void test_fields(sidecar *sidecar, monitoring::sdk &sdk) {
    const std::string file = "lot.dat, the first";
    sdk.log_event("info", std::string_view(file).substr(0, 7),
                  {{"text", file}, {"view", std::string_view(file).substr(0, 3)}, {"literal", "x"}, {"null", nullptr},
                   {"int", -1}, {"natural", ULLONG_MAX}, {"number", 0.5}, {"truth", true}});
    sdk.log_metric("size", 2.5, "MBy", {{"tool", "A"}});
    sdk.log_counter("files", 1);
    sdk.log_progress("job-1", 50);
    CHECK(sdk.flush(60000));
    CHECK(arrived(sidecar, "\"message\":\"lot.dat\",\"context\":{\"text\":\"lot.dat, the first\",\"view\":\"lot\",\"literal\":\"x\","
                           "\"null\":null,\"int\":-1,\"natural\":\"18446744073709551615\",\"number\":0.5,\"truth\":true}"));
    CHECK(arrived(sidecar, "\"name\":\"size\",\"value\":2.5,\"unit\":\"MBy\",\"tags\":{\"tool\":\"A\"}"));
    CHECK(arrived(sidecar, "\"name\":\"files\",\"value\":1,\"kind\":\"counter\""));
    CHECK(arrived(sidecar, "\"job_id\":\"job-1\",\"percent\":50,\"status\":\"running\""));
}

static void test_spans(sidecar *sidecar, monitoring::sdk &sdk) {
    std::string outer, inner;
    try {
        monitoring::span span(sdk, "outer", {{"lot", "A"}});
        outer = span.id();
        {
            monitoring::span nested(sdk, "inner");
            inner = nested.id();
        }
        throw std::runtime_error("on purpose");
    } catch (const std::runtime_error &) {
    }
    CHECK(sdk.flush(60000));
    CHECK(arrived(sidecar, "\"span_id\":\"" + inner + "\",\"name\":\"inner\",\"parent_id\":\"" + outer + "\",\"status\":\"ok\""));
    CHECK(arrived(sidecar, "\"span_id\":\"" + outer + "\",\"name\":\"outer\",\"status\":\"error\""));
}

static void test_errors(monitoring::sdk &sdk) {
    CHECK(code_of(sdk, "loud") == MON_ELEVEL);
    CHECK(code_of(sdk, "WARN") == 0);
}

int main() {
    char folder[] = "/tmp/wafermon-cpp-XXXXXX";
    CHECK(mkdtemp(folder) != nullptr);
    sidecar *sidecar = sidecar_start(nullptr, ANSWERING);
    {
        monitoring::sdk sdk({"tests", sidecar_url(sidecar), "", 0, folder});
        test_fields(sidecar, sdk);
        test_spans(sidecar, sdk);
        test_errors(sdk);
    }
    CHECK(sidecar_problems(sidecar) == 0);
    sidecar_stop(sidecar);
    CHECK(rmdir(folder) == 0);
    std::puts("the C++ header's tests passed");
}
