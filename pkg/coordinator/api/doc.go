// Package api is the HTTP interface of the coordinators: its JSON types and a client. The types are stable: fields are added,
// never changed or taken away.
//
//	client, err := api.New(api.Config{Endpoints: []string{"https://a:8443", "https://b:8443"}, Token: token})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	exp, err := client.Submit(ctx, api.Submit{YAML: text, Replicas: 4})
//	for change, err := range client.Watch(ctx, exp.Version) {
//		...
//	}
//
// A [Client] tries its endpoints in turn and goes on trying while a leader is elected. What a coordinator refuses is an
// [*Error], whose Code says what to do about it.
package api
