# HyperMesh.pm - the demo's five programs with ports of the kernel's choice, in the test's folder
#
#   my $mesh = mesh();              # sd, proxy, public-proxy-1.ga, hd-2, hd-1: all started and ready
#   $mesh->ping                     # hd-1 -> hd-2 through the proxy
#
# Options: directory => 'api' (with sd) or 'json' (no sd); plain => 1 (the proxy's JSON-RPC sides without TLS);
# workers => N; proxy => "extra settings of group public"; hyper => { NAME => "extra settings" };
# edit => sub { my ($records) = @_ } changes the directory's records; start => 0 starts nothing.
package HyperMesh;
use strict;
use warnings;
use Exporter 'import';
use HyperTest;

our @EXPORT = qw(mesh mesh_with_service);

# protocol.md 9.1, with the ports of this mesh
sub records {
	my ($m) = @_;
	my $call = sub { return [ { group => $_[0], rights => ['call'] } ] };
	my $service = sub { my ($name, $method, $group) = @_;
		return { name => $name, permissions => [], methods => [ { name => $method, permissions => $call->($group) } ] } };
	my @records;
	my $add = sub { my ($name, $section, $data) = @_;
		push @records, { name => $name, section => $section, data => $data, created_at => '2026-01-01T00:00:00Z' } };
	for my $n (1, 2) {
		$add->("hd-$n", 'groups', ['health-departments']);
		$add->("hd-$n", 'channels', [ { type => 'grpc_client' },
			{ type => 'grpc_server', settings => { address => "localhost:$m->{port}{\"hd-$n.grpc\"}", proxy => 'public-proxy-1.ga' } } ]);
		$add->("hd-$n", 'services', [ $service->('connection-requests', '_connectionRequest', 'proxy-providers'),
			$service->('internals', '_ping', 'health-departments'), $service->('echoes', 'echo', 'health-departments') ]);
	}
	$add->('public-proxy-1.ga', 'groups', ['proxy-providers']);
	$add->('public-proxy-1.ga', 'channels', [
		{ type => 'grpc_server', settings => { address => "localhost:$m->{port}{'ph.grpc'}" } }, { type => 'grpc_client' } ]);
	$add->('public-proxy-1.ga', 'services', [ $service->('hd-proxy', 'requestConnection', 'health-departments') ]);
	$m->{opt}{edit}->(\@records) if $m->{opt}{edit};
	return { records => \@records };
}

sub tls {
	my ($name, $more) = @_;
	my $c = certs();
	return qq({ ca_certificate_files = [ "$c/root.crt" ]; certificate_file = "$c/$name.crt"; key_file = "$c/$name.key"; ) . ($more // '') . '}';
}

sub directory_settings {
	my ($m, $name) = @_;
	my $c = certs();
	return qq(directory = { type = "json"; settings = { path = "$m->{dir}/directory"; }; };\n) if $m->{opt}{directory} eq 'json';
	# protocol.md 9.2: the proxy's hyper borrows hd-1's identity towards sd
	my $cert = $name eq 'public-proxy-1.ga' ? 'hd-1' : $name;
	my $tls = tls($cert);
	return qq(directory = { type = "api"; settings = { endpoints = [ "https://localhost:$m->{port}{sd}/jsonrpc" ]; server_names = [ "sd-1" ];
	cache_entries_for = 1; ca_certificate_files = [ "$c/root.crt" ]; ca_intermediate_certificate_files = [ "$c/intermediate.crt" ];
	store = "$m->{dir}/$name.chain"; jsonrpc_client = { tls = $tls; }; }; };\n);
}

sub write_hyper {
	my ($m, $name, $short) = @_;
	my $c = certs();
	my $proxied = $name eq 'public-proxy-1.ga';
	my $tls = tls($name);
	my $plain = $m->{opt}{plain};
	my $rpc_tls = $proxied && $plain ? '' : 'tls = ' . tls($name) . ';';
	my $service = $proxied ? ($plain ? 'http' : 'https') . "://localhost:$m->{port}{proxy}/jsonrpc"
	    : $m->{opt}{service}{$name} // "http://localhost:$m->{port}{\"$short.rpc\"}/jsonrpc";
	my $service_tls = $proxied && !$plain ? 'tls = ' . tls($name, 'server_name = "public-proxy-1.ga";') . ';' : '';
	my %channel = (
		jsonrpc_client => qq({ name = "services"; type = "jsonrpc_client"; settings = { endpoint = "$service"; $service_tls }; }),
		grpc_server => qq({ name = "grpc in"; type = "grpc_server"; settings = { bind_address = "localhost:$m->{port}{"$short.grpc"}"; tls = $tls; }; }),
		grpc_client => qq({ name = "grpc out"; type = "grpc_client"; settings = { tls = $tls; }; }),
		jsonrpc_server => qq({ name = "applications"; type = "jsonrpc_server"; settings = { bind_address = "localhost:$m->{port}{"$short.rpc"}"; $rpc_tls }; }),
	);
	my @order = $proxied ? qw(grpc_server grpc_client jsonrpc_server jsonrpc_client) : qw(jsonrpc_client grpc_server grpc_client jsonrpc_server);
	my $more = $m->{opt}{hyper}{$name} // '';
	# A test that starts the proxy's server last must not wait for a back-off that has grown to half a minute.
	$more .= "reconnect_max = 1;\n" if $more !~ /reconnect_max/;
	# Nor wait for calls that nobody answers when it stops.
	$more .= "drain_timeout = 0;\n" if $more !~ /drain_timeout/;
	write_file("$m->{dir}/$short/001.cfg", qq(name = "$name";\nlog_level = "debug";\n) . directory_settings($m, $name)
	    . ($name =~ /^hd-/ ? qq(signing = { name = "$name"; certificate_file = "$c/$name-sign.crt"; key_file = "$c/$name-sign.key";
	ca_certificate_files = [ "$c/root.crt" ]; ca_intermediate_certificate_files = [ "$c/intermediate.crt" ]; };\n) : '')
	    . "channels = (\n\t" . join(",\n\t", @channel{@order}) . "\n);\n" . $more);
	return;
}

sub write_all {
	my ($m) = @_;
	my ($c, $p, $plain) = (certs(), $m->{port}, $m->{opt}{plain});
	write_file("$m->{dir}/directory/001_default.json", json_text(records($m)));
	write_file("$m->{dir}/directory/002_certificates.json", read_file("$c.records/002_certificates.json"));
	my $sd_tls = tls('sd-1');
	write_file("$m->{dir}/sd/001.cfg", qq(log_level = "debug"; jsonrpc_server = { bind_address = "localhost:$p->{sd}"; tls = $sd_tls; };
store = { type = "sqlite"; path = "$m->{dir}/sd.sqlite"; };
directory = { ca_certificate_files = [ "$c/root.crt" ]; ca_intermediate_certificate_files = [ "$c/intermediate.crt" ]; };\n));
	my $server_tls = $plain ? '' : 'tls = ' . tls('public-proxy-1.ga') . ';';
	my $client_tls = $plain ? '' : 'tls = ' . tls('public-proxy-1.ga', 'server_name = "public-proxy-1.ga";') . ';';
	my $scheme = $plain ? 'http' : 'https';
	my $workers = $m->{opt}{workers} // 2;
	write_file("$m->{dir}/proxy/001.cfg", qq(log_level = "debug"; public = { name = "public-proxy-1.ga"; workers = $workers; drain_timeout = 0.0;
	internal_bind_address = "localhost:$p->{endpoint}"; internal_endpoint = "localhost:$p->{endpoint}";
	jsonrpc_server = { bind_address = "localhost:$p->{proxy}"; $server_tls };
	jsonrpc_client = { endpoint = "$scheme://localhost:$p->{'ph.rpc'}/jsonrpc"; $client_tls };
) . ($m->{opt}{proxy} // '') . "};\n");
	write_hyper($m, 'public-proxy-1.ga', 'ph');
	write_hyper($m, 'hd-1', 'hd-1');
	write_hyper($m, 'hd-2', 'hd-2');
	return;
}

sub mesh {
	my (%opt) = @_;
	$opt{directory} //= 'api';
	my $m = bless { opt => \%opt, dir => tmp() . '/mesh', port => {} }, 'HyperMesh';
	$m->{port}{$_} = free_port() for qw(sd proxy endpoint ph.rpc ph.grpc hd-1.rpc hd-1.grpc hd-2.rpc hd-2.grpc);
	$m->write_all;
	$m->start_all if $opt{start} // 1;
	return $m;
}

# A mesh that is not started, whose hd-2 has these settings and a service, an echo, with the methods `slow` and `never`
# for health departments. (mesh, the service's daemon)
sub mesh_with_service {
	my ($settings) = @_;
	my $m = mesh(start => 0, hyper => { 'hd-2' => $settings }, edit => sub {
		for my $r (grep { $_->{name} eq 'hd-2' && $_->{section} eq 'services' } @{ $_[0] }) {
			push @{ $r->{data} }, { name => 'more', permissions => [ { group => 'health-departments', rights => ['call'] } ],
				methods => [ map { { name => $_, permissions => [] } } qw(slow never) ] };
		}
	});
	my $echo = HyperTest::start('echo', [ build() . '/t/unit/rpc_echo', '--bind=localhost:0' ]);
	$m->{opt}{service}{'hd-2'} = 'http://localhost:' . $echo->ready('port') . '/jsonrpc';
	$m->write_all;
	return ($m, $echo);
}

# sd, proxy, ph, hd-1 or hd-2; returns the daemon, which is also $mesh->{NAME}.
sub start_one {
	my ($m, $name) = @_;
	my ($variable, @cmd) = $name eq 'sd' ? ('SD_SETTINGS', program('sd'), 'run')
	    : $name eq 'proxy' ? ('PROXY_SETTINGS', program('proxy'), 'run', 'public') : ('HYPER_SETTINGS', program('hyper'), 'server', 'run');
	return $m->{$name} = HyperTest::start($name, \@cmd, env => { $variable => "$m->{dir}/$name" });
}

# Signs and submits the directory's records.
sub submit {
	my ($m) = @_;
	my @reset = ('--reset');
	for my $file (sort glob "$m->{dir}/directory/*.json") {
		my ($code, $out, $err) = run_program([ program('hyper'), 'sd', 'submit-records', @reset, $file ], env => { HYPER_SETTINGS => "$m->{dir}/hd-1" });
		die "submit-records $file: $out$err" if $code;
		@reset = ();
	}
	return;
}

sub start_all {
	my ($m) = @_;
	if ($m->{opt}{directory} eq 'api') {
		$m->start_one('sd');
		$m->submit;
	}
	$m->start_one($_) for qw(proxy ph hd-2 hd-1);
	$m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 20) // die "hd-2 opened no standing stream:\n" . $m->{'hd-2'}->log_text;
	return;
}

# A JSON-RPC call at hd-1 (or at => NAME) as a local application; HyperTest::rpc's answer.
sub call {
	my ($m, $method, $params, %opt) = @_;
	my $at = delete $opt{at} // 'hd-1';
	return rpc("https://$at:$m->{port}{\"$at.rpc\"}/jsonrpc", $method, $params, cert => $at, %opt);
}

sub ping { my ($m, %opt) = @_; return $m->call('hd-2._ping', {}, %opt) }

1;
