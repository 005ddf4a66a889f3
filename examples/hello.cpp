/*
 * libfelix from C++: the header needs no wrapper. A unique_ptr with a deleter per handle closes
 * everything on every way out, and errors become exceptions in one place.
 *
 *     hello [STREAM]
 */
#include <felix/felix.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

void check(felix_err err) {
    if (err != FELIX_OK)
        throw std::runtime_error(std::string(felix_err_name(err)) + ": " + felix_last_error());
}

struct Close {
    void operator()(felix_options *options) const {
        felix_options_free(options);
    }
    void operator()(felix_client *client) const {
        felix_close(client, 1000);
    }
    void operator()(felix_subscription *subscription) const {
        felix_unsubscribe(subscription);
    }
};
template <class T> using Owned = std::unique_ptr<T, Close>;

Owned<felix_client> connect() {
    Owned<felix_options> options(felix_options_new());
    if (!options)
        throw std::runtime_error(felix_last_error());
    felix_client *client = nullptr;
    check(felix_connect(options.get(), 0, &client));
    return Owned<felix_client>(client);
}

void run(const std::string &stream) {
    Owned<felix_client> client = connect();
    felix_subscription *raw = nullptr;
    check(felix_subscribe(client.get(), "default", stream.c_str(), nullptr, &raw));
    Owned<felix_subscription> subscription(raw);

    const std::string text = "hello from C++";
    const felix_bytes payload = {text.data(), text.size()};
    check(felix_publish(client.get(), "default", stream.c_str(), &payload, 1, FELIX_ACK_PER_MESSAGE,
                        nullptr, nullptr));
    felix_message message = {};
    check(felix_next(subscription.get(), 10000, &message));
    std::cout << std::string(static_cast<const char *>(message.data), message.len) << '\n';
}

} // namespace

int main(int argc, char **argv) {
    try {
        run(argc > 1 ? argv[1] : "orders");
        return 0;
    } catch (const std::exception &error) {
        std::cerr << "hello: " << error.what() << '\n';
        return 1;
    }
}
