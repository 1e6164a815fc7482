/*
 * monitoring_sdk.hpp - the C SDK for C++17: strings, fields in braces, spans that end with their scope. monitoring_sdk.h is the reference.
 *
 *     monitoring::sdk sdk({"file-receiver"});
 *     monitoring::span span(sdk, "load", {{"lot", lot}});
 *     sdk.log_event("info", "file received", {{"file", name}, {"rows", rows}});
 *
 * A programming error, such as an unknown level, is a monitoring::error, at the call. The network never is one.
 */
#ifndef MONITORING_SDK_HPP
#define MONITORING_SDK_HPP

#include "monitoring_sdk.h"

#include <cstddef>
#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace monitoring {

/* A negative code of monitoring_sdk.h. */
class error : public std::runtime_error {
public:
    explicit error(int code) : std::runtime_error(monitoring_strerror(code)), code_(code) {}
    int code() const noexcept { return code_; }

private:
    int code_;
};

inline void check(int code) {
    if (code == MON_ENOMEM)
        throw std::bad_alloc();
    if (code)
        throw error(code);
}

/* One field of a context or of tags: text, a number, a truth; nullptr is null. It has copies of its strings. */
class field {
public:
    field(std::string_view key, std::string_view text) : key_(key), text_(text) { value_.kind = MON_STRING; }
    field(std::string_view key, const std::string &text) : field(key, std::string_view(text)) {}
    field(std::string_view key, const char *text) : field(key, std::string_view(text ? text : "")) { null_ = !text; }
    field(std::string_view key, std::nullptr_t) : field(key, static_cast<const char *>(nullptr)) {}

    template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
    field(std::string_view key, Number number) : key_(key) {
        if constexpr (std::is_same_v<Number, bool>) {
            value_.kind = MON_TRUTH;
            value_.value.integer = number;
        } else if constexpr (std::is_floating_point_v<Number>) {
            value_.kind = MON_NUMBER;
            value_.value.number = static_cast<double>(number);
        } else if constexpr (std::is_unsigned_v<Number>) {
            value_.kind = MON_UNSIGNED;
            value_.value.natural = number;
        } else {
            value_.kind = MON_INTEGER;
            value_.value.integer = number;
        }
    }

    /* As C has it; valid as long as this field. */
    monitoring_field get() const {
        monitoring_field value = value_;
        value.key = key_.c_str();
        if (value.kind == MON_STRING)
            value.value.string = null_ ? nullptr : text_.c_str();
        return value;
    }

private:
    std::string key_, text_;
    monitoring_field value_{};
    bool null_ = false;
};

using fields = std::initializer_list<field>;

inline std::vector<monitoring_field> to_c(fields given) {
    std::vector<monitoring_field> result;
    for (const field &each : given)
        result.push_back(each.get());
    return result;
}

/* Of monitoring_options; what is empty comes from the environment. */
struct options {
    std::string service = {}, url = {}, trace_id = {};
    int buffer = 0;
    std::string spill_dir = {}, token = {};
};

/* A handle, which its destructor closes: that takes 2 s at the most. All threads may use it. */
class sdk {
public:
    explicit sdk(const options &given = {}) {
        monitoring_options plain{};
        plain.service = given.service.c_str();
        plain.url = given.url.c_str();
        plain.trace_id = given.trace_id.empty() ? nullptr : given.trace_id.c_str();
        plain.buffer = given.buffer;
        plain.spill_dir = given.spill_dir.c_str();
        plain.token = given.token.c_str();
        check(monitoring_open(&handle_, &plain));
    }
    ~sdk() { monitoring_free(handle_); }
    sdk(const sdk &) = delete;
    sdk &operator=(const sdk &) = delete;

    void log_event(std::string_view level, std::string_view message, fields context = {}) {
        const auto list = to_c(context);
        check(monitoring_log_event(handle_, std::string(level).c_str(), std::string(message).c_str(),
                                   MON_FIELDS(list.data(), list.size()), MON_END));
    }
    void log_metric(std::string_view name, double value, std::string_view unit = {}, fields tags = {}) {
        const auto list = to_c(tags);
        const std::string of(unit);
        check(monitoring_log_metric(handle_, std::string(name).c_str(), value, of.empty() ? nullptr : of.c_str(),
                                    MON_FIELDS(list.data(), list.size()), MON_END));
    }
    /* How many more there are since the last call. */
    void log_counter(std::string_view name, double increment, std::string_view unit = {}, fields tags = {}) {
        const auto list = to_c(tags);
        const std::string of(unit);
        check(monitoring_log_metric(handle_, std::string(name).c_str(), increment, of.empty() ? nullptr : of.c_str(),
                                    MON_COUNTER, MON_FIELDS(list.data(), list.size()), MON_END));
    }
    void log_progress(std::string_view job_id, double percent, std::string_view status = "running") {
        check(monitoring_log_progress(handle_, std::string(job_id).c_str(), percent, std::string(status).c_str()));
    }
    void log_resource() { check(monitoring_log_own_resource(handle_)); }
    void set_trace_id(std::string_view trace_id) {
        check(monitoring_set_trace_id(handle_, std::string(trace_id).c_str()));
    }
    monitoring_stats stats() const {
        monitoring_stats result;
        check(monitoring_get_stats(handle_, &result));
        return result;
    }
    /* Whether nothing is waiting any more; negative: 5000 ms. */
    bool flush(int milliseconds = -1) {
        const int code = monitoring_flush(handle_, milliseconds);
        if (code != MON_ETIMEOUT)
            check(code);
        return !code;
    }
    void close(int milliseconds = -1) { check(monitoring_close(handle_, milliseconds)); }
    /* For the calls that are only in monitoring_sdk.h. */
    monitoring_sdk *get() const noexcept { return handle_; }

private:
    monitoring_sdk *handle_ = nullptr;
};

/* A span that ends with its scope: with status error where an exception leaves it. The sdk has to outlive it. */
class span {
public:
    span(sdk &owner, std::string_view name, fields tags = {}) : sdk_(owner), exceptions_(std::uncaught_exceptions()) {
        const auto list = to_c(tags);
        check(monitoring_start_span_tags(sdk_.get(), std::string(name).c_str(), nullptr, id_,
                                         MON_FIELDS(list.data(), list.size()), MON_END));
    }
    ~span() {
        const bool failed = failed_ || std::uncaught_exceptions() > exceptions_;
        monitoring_end_span(sdk_.get(), id_, failed ? "error" : "ok", MON_END);
    }
    span(const span &) = delete;
    span &operator=(const span &) = delete;

    /* It will end with status error. */
    void fail() noexcept { failed_ = true; }
    const char *id() const noexcept { return id_; }

private:
    sdk &sdk_;
    int exceptions_;
    bool failed_ = false;
    char id_[17] = "";
};

} // namespace monitoring
#endif
