#!/usr/bin/perl
# Guards: a reload of the message server applies all of the settings or nothing, in place: no call fails and no connection is closed, new connections get the new certificate; a wrong one says file and line and changes nothing; what needs a restart is said; TERM lets calls in flight come to their end.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use IO::Socket::SSL;
use POSIX ();
use Test::More;

my $socket = tmp() . '/admin.sock';
my ($m, $echo) = mesh_with_service(qq(drain_timeout = 60;\nadmin_socket = "$socket";\n));
{
	# the directory knows both certificates, as it does while one is being replaced
	my $path = "$m->{dir}/directory/002_certificates.json";
	my $records = json_value(read_file($path));
	my ($r) = grep { $_->{name} eq 'hd-2' } @{ $records->{records} };
	my ($fingerprint) = qx(openssl x509 -in '${\ certs() }/hd-2-alt.crt' -noout -fingerprint -sha256) =~ /=([0-9A-F:]+)/;
	push @{ $r->{data} }, { fingerprint => lc($fingerprint =~ s/://gr), key_usage => 'encryption' };
	write_file($path, json_text($records));
}
my $file = "$m->{dir}/hd-2/001.cfg";
my $c = certs();
# hd-2's own copies, so that they can be swapped
my %own = map { ($_ => "$m->{dir}/own.$_") } qw(crt key);
sub put {
	my ($of) = @_;
	for my $kind (qw(crt key)) {
		write_file("$own{$kind}.new", read_file("$c/$of.$kind"));
		chmod 0600, "$own{$kind}.new";
		rename "$own{$kind}.new", $own{$kind} or die;
	}
	return;
}
put('hd-2');
(my $good = read_file($file)) =~ s/\Q$c\E\/hd-2\.(crt|key)/$own{$1}/g;
write_file($file, $good);
$m->start_all;
my $d = $m->{'hd-2'};
my $pid = $d->pid;

sub verb { return run_program([ program('hyper'), @_ ], env => { HYPER_SETTINGS => "$m->{dir}/hd-2" }, timeout => 60) }
sub hup {
	my $re = qr/ (?:info reloaded|error reload_failed) /;
	my $before = $d->count_log($re);
	$d->signal('HUP');
	wait_until { $d->count_log($re) > $before } 20;
	return ($d->log_text =~ / (info reloaded|error reload_failed) /g)[-1];
}
sub served {
	my ($port) = @_;
	my $s = IO::Socket::SSL->new(PeerAddr => 'localhost', PeerPort => $port, SSL_verify_mode => 0, SSL_alpn_protocols => ['h2'],
		SSL_cert_file => "$c/hd-1.crt", SSL_key_file => "$c/hd-1.key") or die "TLS: $IO::Socket::SSL::SSL_ERROR";
	return $s->get_fingerprint('sha256');
}

is($m->call('hd-2.echo', { a => 1 })->{result}{a}, 1, 'the path works');
my $pairs = $m->{proxy}->count_log(qr/ pair session=/);
my $standing = $m->{ph}->count_log(qr/ registered .*operator=hd-2/);

# What is applied, what is not
my ($exit, $out, $err) = verb('reload');
is("$exit $err", '0 ', 'nothing new: exit status 0');
like($out, qr/^no setting differs/, 'and it is said');
my $port = free_port();
(my $new = $good) =~ s/localhost:$m->{port}{'hd-2.rpc'}/localhost:$port/ or die;
$new =~ s/log_level = "debug"/log_level = "info"/;
write_file($file, $new . "call_timeout = 7;\nmax_in_flight = 9;\n");
($exit, $out, $err) = verb('check', '--diff');
is("$exit $err", '0 ', 'check --diff: exit status 0');
like($out, qr/^would change: call_timeout \d+ -> 7$/m, 'what would change');
like($out, qr/^needs a restart: channels\[3\]\.settings\.bind_address .*:$port"$/m, 'what needs a restart');
is($d->count_log(qr/ reloaded /), 1, 'it changes nothing');
($exit, $out, $err) = verb('reload');
is("$exit $err", '0 ', 'reload: exit status 0');
like($out, qr/^changed: call_timeout \d+ -> 7$/m, 'what changed');
like($out, qr/^changed: max_in_flight 4096 -> 9$/m, 'and that');
like($out, qr/^changed: log_level "debug" -> "info"$/m, 'and that');
like($out, qr/^needs a restart: channels\[3\]\.settings\.bind_address .*:$port"$/m, 'what needs a restart');
like($d->log_text, qr/ warn reload_needs_restart key=channels\[3\]\.settings\.bind_address /, 'the log has it');
my $debug = $d->count_log(qr/ debug /);
is($m->call('hd-2.echo', { a => 2 })->{result}{a}, 2, 'it serves on');
is($d->count_log(qr/ debug /), $debug, 'the new log level holds');
like((verb('check', '--diff'))[1], qr/\Aneeds a restart: channels\[3\][^\n]*\n\z/, 'now only what needs a restart differs');

# The channels themselves: another number or another type
(my $less = $good) =~ s/,\n\t\{ name = "applications".*\n//;
isnt($less, $good, 'a channel less');
write_file($file, $less);
($exit, $out, $err) = verb('reload');
is("$exit $err", '0 ', 'a channel less: exit status 0');
like($out, qr/^needs a restart: channels\[3\]\.name "applications" -> unset$/m, 'it is said');
is($m->call('hd-2._ping', {}, at => 'hd-2')->{result}{serverInfo}{name}, 'hd-2', 'and the channel goes on');
write_file($file, $good =~ s/directory = \{.*?\n.*?\n[^\n]*\}; \}; \};\n/directory = { type = "json"; settings = { path = "$m->{dir}\/directory"; }; };\n/sr);
($exit, $out, $err) = verb('reload');
is("$exit $err", '0 ', 'another kind of directory: exit status 0');
like($out, qr/^needs a restart: directory\.type "api" -> "json"$/m, 'it is said');
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'and the one of before goes on');

# Each kind of fault
my $bad = write_file("$m->{dir}/bad.crt", "no certificate\n");
my %wrong = (
	'syntax' => [ "name = ;\n$good", qr/001\.cfg:1: / ],
	'unknown key' => [ "nonsense = 1;\n$good", qr/001\.cfg:1: nonsense: / ],
	'missing key file' => [ $good =~ s/key_file = "\Q$own{key}\E"/key_file = "$m->{dir}\/none.key"/r, qr/001\.cfg:\d+: \S+\.tls\.key_file: / ],
	'bad certificate' => [ $good =~ s/\Q$own{crt}\E/$bad/gr, qr/bad\.crt/ ],
	'another authority for records' => [ $good =~ s/(server_names.*?ca_certificate_files = \[ ").*?"/$1$c\/hd-1.crt"/sr, qr/ directory: record \d+ of \d+ / ],
	'value out of range' => [ "${good}max_in_flight = 0;\n", qr/001\.cfg:\d+: max_in_flight: / ],
);
for my $kind (sort keys %wrong) {
	isnt($wrong{$kind}[0], $good, "$kind: the settings differ");
	write_file($file, $wrong{$kind}[0]);
	is(hup(), 'error reload_failed', "$kind: HUP fails");
	like(join("\n", map { s/why="/ /r } grep { / error reload_fault / } split /\n/, $d->log_text), $wrong{$kind}[1], "$kind: the log says where");
	is((verb('reload'))[0], 78, "$kind: hyper reload gives 78");
	is($m->call('hd-2.echo', { a => 3 })->{result}{a}, 3, "$kind: it serves on");
}
write_file($file, $good);
is(hup(), 'info reloaded', 'the good ones again');

# Under load: certificates are swapped and settings change, no call fails
{
	my @children;
	for my $n (1 .. 3) {
		my $child = fork // die "fork: $!";
		if (!$child) {
			my ($calls, $wrong, $why) = (0, 0, '');
			until (-e "$m->{dir}/enough") {
				my $text = "$n." . $calls++;
				my $r = $n == 3 ? $m->call('hd-1._ping', {}, at => 'hd-2') : $m->call('hd-2.echo', { text => $text });
				my $ok = $n == 3 ? ($r->{result}{serverInfo}{name} // '') eq 'hd-1' : ($r->{result}{text} // '') eq $text;
				$why = json_text($r), $wrong++ if !$ok;
			}
			write_file("$m->{dir}/load.$n", "$calls $wrong $why");
			POSIX::_exit(0);
		}
		push @children, $child;
	}
	my ($reloads, $swapped) = (0, 0);
	my %seen;
	my $all = $ENV{HYPER_LONG} ? 200 : 30;
	for my $i (1 .. $all) {
		put($i % 2 ? 'hd-2-alt' : 'hd-2');
		write_file($file, $good . 'call_timeout = ' . (40 + $i % 7) . ";\nmax_in_flight = " . (100 + $i % 5) . ";\n");
		($exit, $out, $err) = verb('reload');
		is($exit, 0, "reload $i") or diag("$out$err"), last if $exit;
		$reloads++;
		$seen{ served($m->{port}{'hd-2.grpc'}) }++ if $i % 5 == 0 || $i < 3;
	}
	write_file("$m->{dir}/enough", '');
	waitpid $_, 0 for @children;
	is($reloads, $all, "$reloads reloads under load");
	is(scalar(keys %seen), 2, 'new connections were served with either certificate');
	for my $n (1 .. 3) {
		my ($calls, $wrong, $why) = split ' ', read_file("$m->{dir}/load.$n"), 3;
		is($wrong, 0, "$n: no call failed") or diag($why);
		cmp_ok($calls, '>', $all / 3, "$n: and there were many ($calls)");
	}
}
is($m->{proxy}->count_log(qr/ pair session=/), $pairs + 1, 'hd-1 calls over the same pair; there is one for the other direction');
is($m->{ph}->count_log(qr/ registered .*operator=hd-2/), $standing, 'over the same standing stream');
is($d->pid, $pid, 'in the same process');

# TERM: what is in flight comes to its end, what is new is refused, a second TERM ends it now
{
	my $r;
	my $child = fork // die "fork: $!";
	if (!$child) {
		write_file("$m->{dir}/drained", json_text($m->call('hd-2.slow', { ms => int 1500 * HyperTest::slow_factor() })));
		POSIX::_exit(0);
	}
	ok($echo->wait_log(qr/SERVING why="slow"/, 10), 'a slow call is with the service');
	$d->signal('TERM');
	ok($d->wait_log(qr/ info draining in_flight=[1-9]/, 10), 'TERM drains');
	my $refused = $m->call('hd-2._ping', {}, at => 'hd-2');
	is($refused->{error}{code}, -32004, 'a new call is refused') or diag(json_text($refused));
	is($refused->{error}{data}{reason}, 'draining', 'reason draining');
	is($d->wait_exit(60), 0, 'it ends with 0');
	waitpid $child, 0;
	$r = json_value(read_file("$m->{dir}/drained"));
	ok($r->{result}, 'the slow call had its answer') or diag(json_text($r));
	$m->start_one('hd-2');
	$d = $m->{'hd-2'};
	ok(wait_until(sub { $m->ping->{result} }, 20), 'it is back');
	for my $end ([ 'a second TERM', sub { $d->signal('TERM') } ], [ 'INT', sub { $d->signal('INT') } ],
		[ 'the deadline of hyper stop', undef ]) {
		my ($how, $code) = @$end;
		my $slow = $echo->count_log(qr/SERVING why="never"/);
		$child = fork // die "fork: $!";
		if (!$child) { $m->call('hd-2.never', {}); POSIX::_exit(0) }
		ok(wait_until(sub { $echo->count_log(qr/SERVING why="never"/) > $slow }, 10), "$how: a call that is never answered");
		if ($code) {
			$d->signal('TERM');
			ok($d->wait_log(qr/ info draining in_flight=[1-9]/, 10), "$how: TERM waits");
			$code->();
			is($d->wait_exit(10), 0, "$how: ends it now");
		} else {
			($exit, $out, $err) = verb('stop', '--deadline', '0.2');
			is($exit, 1, "$how: exit status 1");
			like($out, qr/^stopped: /, "$how: it is gone") or diag($err);
			is($d->wait_exit(10), 0, "$how: with 0");
		}
		waitpid $child, 0;
		$m->start_one('hd-2');
		$d = $m->{'hd-2'};
		ok(wait_until(sub { $m->ping->{result} }, 20), "$how: started again");
	}
	($exit, $out, $err) = verb('stop');
	is("$exit $err", '0 ', 'hyper stop: exit status 0');
	is($d->wait_exit(10), 0, 'and it is gone');
	is((verb('reload'))[0], 69, 'nobody serves the socket: 69');
}
hyper_done();
